// Package process runs the programs that a benchmark compares, each as a process of its
// own, and ends them.
package process

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startTimeout = 2 * time.Minute
	stopTimeout  = 15 * time.Second
	// awaitPoll is how often Await asks. Asked much more often, a process that starts on two
	// processors would be held up by the answers.
	awaitPoll = 10 * time.Millisecond
	// outputLimit is how much of a program's output is kept, for the message of its failure.
	outputLimit = 64 << 10
)

// Process is a program that runs until Stop.
type Process struct {
	Name    string
	command *exec.Cmd
	output  *tail
	done    chan struct{} // closed when the program has ended
}

// Start starts a program. If the benchmark is killed, the program is too.
func Start(name, path string, args ...string) (*Process, error) {
	p := &Process{Name: name, command: exec.Command(path, args...), output: &tail{}, done: make(chan struct{})}
	p.command.Stdout, p.command.Stderr = p.output, p.output
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.command.WaitDelay = stopTimeout
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.command.Wait() // how it ended is only of interest if it ended too early
		close(p.done)
	}()
	return p, nil
}

// Stop ends the program and waits for that.
func (p *Process) Stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM) // fails if it has ended
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		_ = p.command.Process.Kill()
		<-p.done
	}
}

// Await waits until an address answers with a status code.
func (p *Process) Await(ctx context.Context, url string, code int) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	deadline := time.Now().Add(startTimeout)
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("wait for %s: %w", p.Name, err)
		}
		response, err := client.Do(request)
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == code {
				return nil
			}
			err = fmt.Errorf("it answers %s", response.Status)
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s has ended: %s\n%s", p.Name, p.command.ProcessState, p.output)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(awaitPoll):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready after %s: %w\n%s", p.Name, startTimeout, err, p.output)
		}
	}
}

// ResidentMemory returns how much memory the process has in use, in bytes (VmRSS in
// proc_pid_status(5)).
func (p *Process) ResidentMemory() (float64, error) {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.command.Process.Pid), "status"))
	if err != nil {
		return 0, fmt.Errorf("read the memory of %s: %w", p.Name, err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kib * 1024, err
		}
	}
	return 0, fmt.Errorf("read the memory of %s: no VmRSS", p.Name)
}

// FreeAddress returns a loopback address with a port that is free now.
func FreeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// Output runs a program to its end and returns what it prints.
func Output(ctx context.Context, path string, args ...string) (string, error) {
	output, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run %s: %w\n%s", filepath.Base(path), err, output)
	}
	return string(output), nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (t *tail) Write(data []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, data...)
	if extra := len(t.data) - outputLimit; extra > 0 {
		t.data = append(t.data[:0], t.data[extra:]...)
	}
	return len(data), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.data))
}
