package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
)

const cniFile = "/etc/cni/net.d/10-ground.conflist"

// writeCNI gives the container runtime a point-to-point link per pod with addresses out of the
// node's share of the pod network.
func (a *agent) writeCNI(context.Context) error {
	node, err := a.nodes.Get(a.node)
	if err != nil || node.Spec.PodCIDR == "" {
		return err
	}
	mtu := 1500
	if link, err := net.InterfaceByName("eth0"); err == nil {
		mtu = link.MTU
	}
	want := fmt.Sprintf(`{"cniVersion": "0.3.1", "name": "ground", "plugins": [
  {"type": "ptp", "ipMasq": false, "mtu": %d, "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam-state",
   "routes": [{"dst": "0.0.0.0/0"}], "ranges": [[{"subnet": %q}]]}}]}
`, mtu, node.Spec.PodCIDR)
	if have, err := os.ReadFile(cniFile); err == nil && string(have) == want {
		return nil
	}
	// Written beside and renamed: the runtime watches the folder and reads at once.
	if err := os.WriteFile(cniFile+".new", []byte(want), 0o644); err != nil {
		return err
	}
	log.Print("CNI configuration for ", node.Spec.PodCIDR)
	return os.Rename(cniFile+".new", cniFile)
}
