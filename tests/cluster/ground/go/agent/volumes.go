package main

import (
	"context"
	"errors"
	"log"
	"os"
	"path/filepath"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

const (
	storageClass = "standard"
	volumeFolder = "/var/ground-volumes" // the same path on the node and in this container
	// Tells Kubernetes that somebody else deletes the volume, and us which volumes are ours.
	provisionedBy = "pv.kubernetes.io/provisioned-by"
	ground        = "pgtend.dev/ground"
)

// tendVolumes makes a directory and a PersistentVolume for every claim that waits for one, and
// removes both once the claim is gone. Sizes are not enforced.
func (a *agent) tendVolumes(ctx context.Context) error {
	claims, err := a.claims.List(labels.Everything())
	if err != nil {
		return err
	}
	volumes, err := a.volumes.List(labels.Everything())
	if err != nil {
		return err
	}
	var errs []error
	for _, claim := range claims {
		class := claim.Spec.StorageClassName
		if class != nil && *class == storageClass && claim.Spec.VolumeName == "" && claim.DeletionTimestamp == nil {
			errs = append(errs, a.provision(ctx, claim))
		}
	}
	for _, volume := range volumes {
		released := volume.Status.Phase == core.VolumeReleased && volume.DeletionTimestamp == nil
		if released && volume.Annotations[provisionedBy] == ground &&
			volume.Spec.PersistentVolumeReclaimPolicy == core.PersistentVolumeReclaimDelete {
			errs = append(errs, a.remove(ctx, volume))
		}
	}
	return errors.Join(errs...)
}

func (a *agent) provision(ctx context.Context, claim *core.PersistentVolumeClaim) error {
	name := "pvc-" + string(claim.UID)
	if _, err := a.volumes.Get(name); err == nil {
		return nil // made already; the binder has yet to see it
	}
	path := filepath.Join(volumeFolder, name)
	if err := os.MkdirAll(path, 0o777); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o777); err != nil { // umask; pods run as users of their own
		return err
	}
	here := core.NodeSelectorRequirement{
		Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{a.node},
	}
	mode := core.PersistentVolumeFilesystem
	volume := &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: ground}},
		Spec: core.PersistentVolumeSpec{
			Capacity:                      core.ResourceList{core.ResourceStorage: claim.Spec.Resources.Requests[core.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: core.PersistentVolumeReclaimDelete,
			StorageClassName:              storageClass,
			VolumeMode:                    &mode,
			ClaimRef: &core.ObjectReference{
				Kind: "PersistentVolumeClaim", APIVersion: "v1",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			PersistentVolumeSource: core.PersistentVolumeSource{Local: &core.LocalVolumeSource{Path: path}},
			NodeAffinity: &core.VolumeNodeAffinity{Required: &core.NodeSelector{NodeSelectorTerms: []core.NodeSelectorTerm{
				{MatchExpressions: []core.NodeSelectorRequirement{here}},
			}}},
		},
	}
	_, err := a.client.CoreV1().PersistentVolumes().Create(ctx, volume, meta.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err == nil {
		log.Printf("volume %s for %s/%s", name, claim.Namespace, claim.Name)
	}
	return err
}

func (a *agent) remove(ctx context.Context, volume *core.PersistentVolume) error {
	if err := os.RemoveAll(filepath.Join(volumeFolder, filepath.Base(volume.Spec.Local.Path))); err != nil {
		return err
	}
	log.Print("volume removed: ", volume.Name)
	err := a.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, meta.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
