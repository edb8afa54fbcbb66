package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/binder-project/binder-deploy-kubernetes/internal/upstream"
)

// source is one side of a tunnel, as it is read from. It has no buffer while it waits: most
// WebSockets are idle most of the time, and there are many of them.
type source struct {
	conn    net.Conn
	ahead   []byte          // what was read before, and not passed on yet
	raw     syscall.RawConn // nil unless the connection is a socket
	buffers *upstream.Buffers
	buffer  []byte                // nil while nothing is there to read
	attempt func(fd uintptr) bool // s.read
	n       int                   // what the last attempt has read
	err     error
}

func (p *Proxy) source(c net.Conn, ahead []byte) *source {
	s := &source{conn: c, ahead: ahead, buffers: &p.buffers}
	s.attempt = s.read
	if system, ok := systemConn(c); ok {
		s.raw, _ = system.SyscallConn() // an error leaves nil
	}
	return s
}

// systemConn returns the connection that another one was made from.
func systemConn(c net.Conn) (syscall.Conn, bool) {
	for {
		if system, ok := c.(syscall.Conn); ok {
			return system, true
		}
		wrapper, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil, false
		}
		c = wrapper.NetConn()
	}
}

// next waits for bytes, and returns them until the next call. It can return bytes together
// with an error.
func (s *source) next() ([]byte, error) {
	if len(s.ahead) > 0 {
		p := s.ahead
		s.ahead = nil
		return p, nil
	}
	if s.raw == nil {
		s.lend()
		s.n, s.err = s.conn.Read(s.buffer)
		return s.buffer[:s.n], s.err
	}
	if err := s.raw.Read(s.attempt); err != nil {
		return nil, err
	}
	return s.buffer[:s.n], s.err
}

// read reads what is there. It returns false if nothing is, and then holds no buffer.
func (s *source) read(fd uintptr) bool {
	s.lend()
	var err error
	for s.n, err = syscall.Read(int(fd), s.buffer); errors.Is(err, syscall.EINTR); {
		s.n, err = syscall.Read(int(fd), s.buffer)
	}
	switch {
	case errors.Is(err, syscall.EAGAIN):
		s.release()
		return false
	case err != nil:
		s.n, s.err = 0, os.NewSyscallError("read", err)
	case s.n == 0:
		s.err = io.EOF
	}
	return true
}

// lend makes sure of a buffer.
func (s *source) lend() {
	if s.buffer == nil {
		s.buffer = s.buffers.Get()
	}
}

// release gives the buffer back.
func (s *source) release() {
	s.buffers.Put(s.buffer)
	s.buffer = nil
}

// readAhead returns what a reader has read and nobody has taken, and takes the reader's
// buffer from it: the server keeps a reference to the reader for as long as its handler
// runs.
func readAhead(r *bufio.Reader) []byte {
	ahead, _ := r.Peek(r.Buffered()) // has no error
	ahead = bytes.Clone(ahead)
	*r = bufio.Reader{}
	return ahead
}
