// Command agent does on a single node what a CNI daemon, a network policy engine and a volume
// provisioner do on a cluster. It exists because none of them can be had as a Go module that needs
// no container registry and works where the kernel has no nftables queue. It writes the node's CNI
// configuration, masquerades what leaves the pods' network, enforces NetworkPolicy with nftables,
// and makes directories of PersistentVolumeClaims. IPv4 only; a connection that is open stays open
// when a policy comes to forbid it.
package main

import (
	"context"
	"log"
	"os"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	netlisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

type agent struct {
	client     kubernetes.Interface
	node       string
	podSubnet  string
	lastRules  string
	nodes      corelisters.NodeLister
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
	policies   netlisters.NetworkPolicyLister
	claims     corelisters.PersistentVolumeClaimLister
	volumes    corelisters.PersistentVolumeLister
}

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	config, err := rest.InClusterConfig()
	if err != nil {
		log.Fatal(err)
	}
	// Straight to the API server: the Service address needs kube-proxy, which may not be up yet.
	config.Host = "https://" + os.Getenv("CONTROL_PLANE_ENDPOINT")
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	core, net := factory.Core().V1(), factory.Networking().V1()
	a := &agent{
		client: client, node: os.Getenv("NODE_NAME"), podSubnet: os.Getenv("POD_SUBNET"),
		nodes: core.Nodes().Lister(), pods: core.Pods().Lister(), namespaces: core.Namespaces().Lister(),
		policies: net.NetworkPolicies().Lister(), claims: core.PersistentVolumeClaims().Lister(),
		volumes: core.PersistentVolumes().Lister(),
	}
	kick := make(chan struct{}, 1)
	wake := func() {
		select {
		case kick <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { wake() }, UpdateFunc: func(any, any) { wake() }, DeleteFunc: func(any) { wake() },
	}
	for _, informer := range []cache.SharedIndexInformer{
		core.Nodes().Informer(), core.Pods().Informer(), core.Namespaces().Informer(),
		net.NetworkPolicies().Informer(), core.PersistentVolumeClaims().Informer(), core.PersistentVolumes().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			log.Fatal(err)
		}
	}
	ctx := context.Background()
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	log.Printf("node %s, pods %s, API %s", a.node, a.podSubnet, config.Host)
	retry := time.NewTicker(5 * time.Second)
	for {
		for name, duty := range map[string]func(context.Context) error{
			"CNI": a.writeCNI, "rules": a.applyRules, "volumes": a.tendVolumes,
		} {
			if err := duty(ctx); err != nil {
				log.Print(name, ": ", err)
			}
		}
		select {
		case <-kick:
			time.Sleep(50 * time.Millisecond) // events come in bursts
		case <-retry.C:
		}
	}
}
