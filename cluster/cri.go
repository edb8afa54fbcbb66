package main

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// containerRuntime is a client of containerd's CRI, which the kubelet also uses.
type containerRuntime struct {
	conn     *grpc.ClientConn
	runtime  cri.RuntimeServiceClient
	imageAPI cri.ImageServiceClient
}

// dialRuntime returns a client. It connects at the first call.
func (n node) dialRuntime() (*containerRuntime, error) {
	conn, err := grpc.NewClient("unix://"+n.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("create a containerd client: %w", err)
	}
	return &containerRuntime{
		conn:     conn,
		runtime:  cri.NewRuntimeServiceClient(conn),
		imageAPI: cri.NewImageServiceClient(conn),
	}, nil
}

func (r *containerRuntime) close() error { return r.conn.Close() }

// ready returns an error unless containers can be started.
func (r *containerRuntime) ready(ctx context.Context) error {
	answer, err := r.runtime.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return err
	}
	for _, condition := range answer.GetStatus().GetConditions() {
		if condition.Type == cri.RuntimeReady && !condition.Status {
			return errors.New(condition.Message)
		}
	}
	return nil
}

// imageID returns the id of the named image, which is the digest of its
// configuration, or "" if there is no such image.
func (r *containerRuntime) imageID(ctx context.Context, name string) (string, error) {
	answer, err := r.imageAPI.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}})
	if err != nil {
		return "", fmt.Errorf("get the image %s from containerd: %w", name, err)
	}
	return answer.GetImage().GetId(), nil
}

// removePods stops all pods in parallel and removes their networks.
func (r *containerRuntime) removePods(ctx context.Context) error {
	answer, err := r.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("list the pods in containerd: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for _, pod := range answer.Items {
		group.Go(func() error {
			if _, err := r.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod.Id}); err != nil {
				return fmt.Errorf("stop the pod %s: %w", pod.GetMetadata().GetName(), err)
			}
			if _, err := r.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod.Id}); err != nil {
				return fmt.Errorf("remove the pod %s: %w", pod.GetMetadata().GetName(), err)
			}
			return nil
		})
	}
	return group.Wait()
}
