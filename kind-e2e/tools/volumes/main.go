// Command volumes provides persistent volumes in a cluster of one node: a folder of the node for each
// claim of its storage class, removed with the claim. Kubernetes' own host-path provisioner makes
// folders that only root may write, which no pod of ours is.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// provisioner is the name in the storage class (node/default-storage.yaml).
const provisioner = "fedgate.dev/node-folder"

// Annotations by which Kubernetes' volume controller says whose turn it is, and whom a volume belongs to.
const (
	askedProvisioner = "volume.kubernetes.io/storage-provisioner"
	provisionedBy    = "pv.kubernetes.io/provisioned-by"
)

// Lists of a test cluster are short; looking is simpler than watching.
const interval = time.Second

func main() {
	kubeconfig := flag.String("kubeconfig", "", "file of an administrator's credentials")
	folder := flag.String("folder", "", "where the volumes' folders are made")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	for ; ; time.Sleep(interval) {
		if err := provide(context.Background(), client, *folder); err != nil {
			log.Print(err)
		}
		if err := reclaim(context.Background(), client, *folder); err != nil {
			log.Print(err)
		}
	}
}

// provide makes a volume for each claim that waits for us.
func provide(ctx context.Context, client kubernetes.Interface, folder string) error {
	claims, err := client.CoreV1().PersistentVolumeClaims("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range claims.Items {
		claim := &claims.Items[i]
		bound := claim.Spec.VolumeName != "" || claim.Spec.StorageClassName == nil
		if bound || claim.Annotations[askedProvisioner] != provisioner {
			continue
		}
		volume := volumeFor(claim, folder)
		path := volume.Spec.HostPath.Path
		if err := os.MkdirAll(path, 0o777); err != nil {
			return err
		}
		// Pods run as users that this node does not know. MkdirAll is subject to the umask.
		if err := os.Chmod(path, 0o777); err != nil {
			return err
		}
		_, err := client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

// volumeFor is bound to the claim from the start, so that no other takes it.
func volumeFor(claim *corev1.PersistentVolumeClaim, folder string) *corev1.PersistentVolume {
	name := "pvc-" + string(claim.UID)
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Annotations: map[string]string{provisionedBy: provisioner},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:         claim.Spec.Resources.Requests,
			AccessModes:      claim.Spec.AccessModes,
			StorageClassName: *claim.Spec.StorageClassName,
			VolumeMode:       claim.Spec.VolumeMode,
			// The folder's removal is ours: `reclaim`.
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1",
				Kind:       "PersistentVolumeClaim",
				Namespace:  claim.Namespace,
				Name:       claim.Name,
				UID:        claim.UID,
			},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: filepath.Join(folder, name)},
			},
		},
	}
}

// reclaim removes volumes whose claim is gone.
func reclaim(ctx context.Context, client kubernetes.Interface, folder string) error {
	volumes, err := client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range volumes.Items {
		volume := &volumes.Items[i]
		if volume.Annotations[provisionedBy] != provisioner || volume.Status.Phase != corev1.VolumeReleased {
			continue
		}
		if err := os.RemoveAll(filepath.Join(folder, volume.Name)); err != nil {
			return err
		}
		err := client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}
