package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os/exec"
	"slices"
	"strings"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// frame is the whole table. Rules hang on forward (pod to pod and beyond, after kube-proxy has
// chosen an endpoint) and on input (pod to its own node). A node reaches its own pods through
// output, which is not filtered: probes always pass.
const frame = `table inet ground
delete table inet ground
table inet ground {
%s	chain egress {
%s	}
	chain ingress {
%s	}
	chain forward {
		type filter hook forward priority 0; policy accept;
		ct state established,related accept
		jump egress
		jump ingress
	}
	chain input {
		type filter hook input priority 0; policy accept;
		ct state established,related accept
		jump egress
		jump ingress
	}
	chain post {
		type nat hook postrouting priority 99; policy accept;
		ip saddr %s ip daddr != %s fib daddr type != local masquerade
	}
}
`

func (a *agent) applyRules(ctx context.Context) error {
	rules, err := a.rules()
	if err != nil || rules == a.lastRules {
		return err
	}
	command := exec.CommandContext(ctx, "nft", "-f", "-")
	command.Stdin = strings.NewReader(rules)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, bytes.TrimSpace(out))
	}
	a.lastRules = rules
	log.Printf("%d bytes of rules in force", len(rules))
	return nil
}

func (a *agent) rules() (string, error) {
	pods, err := a.pods.List(labels.Everything())
	if err != nil {
		return "", err
	}
	policies, err := a.policies.List(labels.Everything())
	if err != nil {
		return "", err
	}
	pods = slices.DeleteFunc(slices.Clone(pods), func(p *core.Pod) bool { return !hasAddress(p) })
	slices.SortFunc(pods, func(x, y *core.Pod) int { return strings.Compare(x.Status.PodIP, y.Status.PodIP) })
	slices.SortFunc(policies, func(x, y *networking.NetworkPolicy) int {
		return strings.Compare(x.Namespace+"/"+x.Name, y.Namespace+"/"+y.Name)
	})
	var chains, egress, ingress strings.Builder
	for _, pod := range pods {
		var in, out strings.Builder
		var filterIn, filterOut bool
		for _, policy := range policies {
			if policy.Namespace != pod.Namespace || !selects(&policy.Spec.PodSelector, pod.Labels) {
				continue
			}
			if slices.Contains(policy.Spec.PolicyTypes, networking.PolicyTypeIngress) {
				filterIn = true
				for _, rule := range policy.Spec.Ingress {
					a.allow(&in, "saddr", policy.Namespace, rule.From, rule.Ports, pods, pod)
				}
			}
			if slices.Contains(policy.Spec.PolicyTypes, networking.PolicyTypeEgress) {
				filterOut = true
				for _, rule := range policy.Spec.Egress {
					a.allow(&out, "daddr", policy.Namespace, rule.To, rule.Ports, pods, nil)
				}
			}
		}
		ip := pod.Status.PodIP
		name := strings.ReplaceAll(ip, ".", "_")
		if filterIn {
			fmt.Fprintf(&chains, "\tchain in_%s { # %s/%s\n%s\t\tcounter drop\n\t}\n", name, pod.Namespace, pod.Name, &in)
			fmt.Fprintf(&ingress, "\t\tip daddr %s jump in_%s\n", ip, name)
		}
		if filterOut {
			fmt.Fprintf(&chains, "\tchain out_%s { # %s/%s\n%s\t\tcounter drop\n\t}\n", name, pod.Namespace, pod.Name, &out)
			fmt.Fprintf(&egress, "\t\tip saddr %s jump out_%s\n", ip, name)
		}
	}
	return fmt.Sprintf(frame, &chains, &egress, &ingress, a.podSubnet, a.podSubnet), nil
}

func hasAddress(p *core.Pod) bool {
	done := p.Status.Phase == core.PodSucceeded || p.Status.Phase == core.PodFailed
	return !p.Spec.HostNetwork && p.Status.PodIP != "" && !done
}

func selects(selector *meta.LabelSelector, have map[string]string) bool {
	s, err := meta.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(have))
}

// allow writes one rule of a policy. target is the pod that the policy selects for ingress, where a
// named port is one of its own; for egress it is nil, and a named port is one of each peer's.
func (a *agent) allow(w *strings.Builder, side, namespace string, peers []networking.NetworkPolicyPeer,
	ports []networking.NetworkPolicyPort, pods []*core.Pod, target *core.Pod) {
	write := func(match string, owner *core.Pod) {
		for _, port := range portMatches(ports, owner) {
			fmt.Fprintf(w, "\t\t%s%sreturn\n", match, port)
		}
	}
	if len(peers) == 0 {
		write("", target)
	}
	for _, peer := range peers {
		if block := peer.IPBlock; block != nil {
			match := "ip " + side + " " + block.CIDR + " "
			if len(block.Except) > 0 {
				match += "ip " + side + " != { " + strings.Join(block.Except, ", ") + " } "
			}
			write(match, target)
			continue
		}
		for _, pod := range pods {
			if a.isPeer(peer, namespace, pod) {
				owner := target
				if owner == nil {
					owner = pod
				}
				write("ip "+side+" "+pod.Status.PodIP+" ", owner)
			}
		}
	}
}

func (a *agent) isPeer(peer networking.NetworkPolicyPeer, namespace string, pod *core.Pod) bool {
	if peer.NamespaceSelector == nil {
		if pod.Namespace != namespace {
			return false
		}
	} else if ns, err := a.namespaces.Get(pod.Namespace); err != nil || !selects(peer.NamespaceSelector, ns.Labels) {
		return false
	}
	return peer.PodSelector == nil || selects(peer.PodSelector, pod.Labels)
}

// portMatches gives one nftables match per port; no ports mean all traffic. A named port that its
// owner does not have matches nothing.
func portMatches(ports []networking.NetworkPolicyPort, owner *core.Pod) []string {
	if len(ports) == 0 {
		return []string{""}
	}
	var matches []string
	for _, port := range ports {
		protocol := strings.ToLower(string(*port.Protocol)) // the API server sets the default
		switch {
		case port.Port == nil:
			matches = append(matches, "meta l4proto "+protocol+" ")
		case port.EndPort != nil:
			matches = append(matches, fmt.Sprintf("%s dport %d-%d ", protocol, port.Port.IntVal, *port.EndPort))
		case port.Port.StrVal == "":
			matches = append(matches, fmt.Sprintf("%s dport %d ", protocol, port.Port.IntVal))
		case owner != nil:
			for _, container := range owner.Spec.Containers {
				for _, p := range container.Ports {
					if p.Name == port.Port.StrVal && strings.EqualFold(string(p.Protocol), protocol) {
						matches = append(matches, fmt.Sprintf("%s dport %d ", protocol, p.ContainerPort))
					}
				}
			}
		}
	}
	return matches
}
