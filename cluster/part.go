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

// part is one of the processes of the cluster.
type part struct {
	name    string
	command []string
	configs []string // configuration files; the part is restarted when one changes
	ports   []int    // TCP ports on 127.0.0.1 or on all addresses
	ready   func(context.Context) error
}

// Time limits for one part. A part normally starts within a few seconds; the
// margin is for a busy machine.
const (
	readyTimeout = 90 * time.Second
	stopTimeout  = 20 * time.Second
)

// logTail is the number of log lines shown when a part fails.
const logTail = 15

// parts returns the cluster's parts in start order.
func (c *cluster) parts() []part {
	return append(c.firstParts(), c.otherParts()...)
}

// firstParts returns the parts without which the others exit.
func (c *cluster) firstParts() []part {
	parts := []part{c.etcd(), c.apiServer()}
	for _, n := range c.nodes() {
		parts = append(parts, n.containerd())
	}
	return parts
}

func (c *cluster) otherParts() []part {
	parts := []part{c.controllerManager(), c.scheduler(), c.kubeProxy(), c.networkPolicy(), c.loadBalancer()}
	for _, n := range c.nodes() {
		parts = append(parts, n.kubelet())
	}
	return parts
}

// start starts the part unless it already runs with the current command and
// configuration. It reports whether it started the part.
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
		if err := running.stop(ctx, stopTimeout); err != nil {
			return false, err
		}
	case running.PID != 0:
		c.progress.say("starting %s again: it had exited", p.name)
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

// partEnvironment returns the parts' environment. It does not depend on the
// environment of this process.
func partEnvironment(l layout) []string {
	return []string{
		"PATH=" + l.bin("") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + l.run(),
	}
}

// waitReady waits until the part is ready. If the part exits or is not ready in
// time, the error contains the end of its log.
func (c *cluster) waitReady(ctx context.Context, p part) error {
	exited := errors.New("it exited")
	watched, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := poll(watched, readyTimeout, func(ctx context.Context) error {
		running, err := readRecord(c.record(p.name))
		if err == nil && !running.alive() {
			cancel(exited)
			return exited
		}
		ctx, done := context.WithTimeout(ctx, 5*time.Second)
		defer done()
		return p.ready(ctx)
	})
	if err == nil {
		return nil
	}
	if context.Cause(watched) == exited {
		err = exited
	}
	return fmt.Errorf("%s did not become ready: %w; end of its log %s:\n%s", p.name, err, c.log(p.name), c.logEnd(p.name))
}

func (c *cluster) logEnd(name string) string {
	data, err := os.ReadFile(c.log(name))
	if err != nil {
		return err.Error()
	}
	return tail(string(data), logTail)
}

// fingerprint returns a hash of the part's command, its configuration, and the
// size and time of its program.
func (p part) fingerprint() (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q\n", p.command)
	program, err := os.Stat(p.command[0])
	if err != nil {
		return "", fmt.Errorf("find the program of %s: %w", p.name, err)
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
