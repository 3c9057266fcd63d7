//go:build tools

// Package tools keeps in go.mod what is built but imported by nothing here.
package tools

import _ "k8s.io/kubernetes/cmd/kubectl"
