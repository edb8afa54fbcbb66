package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// part is one of the processes that make up the cluster.
type part struct {
	name    string
	command []string
	configs []string // files that the command reads: others, and it is restarted
	ports   []int    // TCP ports that it takes on 127.0.0.1 or on all addresses
	ready   func(context.Context) error
}

// Limits of waiting for one part. A part that is ready takes a few seconds;
// the rest is for a machine that is busy with other things.
const (
	readyPatience = 90 * time.Second
	stopPatience  = 20 * time.Second
)

// logTail is how many lines of a part's log are shown when it failed.
const logTail = 15

// parts returns the cluster's parts in the order in which they start.
func (c *cluster) parts() []part {
	return []part{
		c.etcd(), c.containerd(), c.apiServer(),
		c.controllerManager(), c.scheduler(), c.kubelet(), c.kubeProxy(), c.loadBalancer(),
	}
}

// start starts the part unless it runs as it should, and tells whether it did.
func (c *cluster) start(ctx context.Context, p part) (bool, error) {
	fingerprint, err := p.fingerprint()
	if err != nil {
		return false, err
	}
	running, err := readRecord(c.record(p.name))
	if err != nil {
		return false, err
	}
	switch {
	case running.alive() && running.Fingerprint == fingerprint:
		return false, nil
	case running.alive():
		c.progress.say("restarting %s: its command or configuration changed", p.name)
		if err := running.stop(ctx, stopPatience); err != nil {
			return false, err
		}
	case running.PID != 0:
		c.progress.say("starting %s again: it had ended", p.name)
	}
	if err := checkPorts(p); err != nil {
		return false, err
	}
	cmd := exec.Command(p.command[0], p.command[1:]...)
	cmd.Env = partEnvironment(c.layout)
	cmd.Dir = c.run()
	_, err = startProcess(cmd, c.log(p.name), c.record(p.name), fingerprint)
	return true, err
}

// partEnvironment is the same whoever starts the cluster, but for proxies.
func partEnvironment(l layout) []string {
	return []string{
		"PATH=" + l.bin("") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + l.run(),
	}
}

// waitReady waits until the part answers. When it ends or does not answer in
// time, the error has the last lines of its log.
func (c *cluster) waitReady(ctx context.Context, p part) error {
	ended := errors.New("it ended")
	watched, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := poll(watched, readyPatience, func(ctx context.Context) error {
		running, err := readRecord(c.record(p.name))
		if err == nil && !running.alive() {
			cancel(ended)
			return ended
		}
		ctx, done := context.WithTimeout(ctx, 5*time.Second)
		defer done()
		return p.ready(ctx)
	})
	if err == nil {
		return nil
	}
	if context.Cause(watched) == ended {
		err = ended
	}
	return fmt.Errorf("%s did not get ready: %w; the end of its log, %s:\n%s", p.name, err, c.log(p.name), c.logEnd(p.name))
}

func (c *cluster) logEnd(name string) string {
	data, err := os.ReadFile(c.log(name))
	if err != nil {
		return err.Error()
	}
	return tail(string(data), logTail)
}

// fingerprint tells what the part runs: its command, the program in it, and
// its configuration.
func (p part) fingerprint() (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q\n", p.command)
	program, err := os.Stat(p.command[0])
	if err != nil {
		return "", fmt.Errorf("look at the program of %s: %w", p.name, err)
	}
	fmt.Fprintln(sum, program.Size(), program.ModTime().UnixNano())
	for _, path := range p.configs {
		data, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("read the configuration of %s: %w", p.name, err)
		}
		sum.Write(data)
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), nil
}
