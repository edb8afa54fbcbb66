package rawapp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// target finds the purpose and the key in a request's target.
var target = regexp.MustCompile(`/(raw|control)/([0-9A-Za-z-]{1,64})(?:/open/([0-9a-z]{1,16}))?(?:[/?]|$)`)

// Server is the application.
type Server struct {
	mu     sync.Mutex
	plays  map[string]*play
	oldest []string // keys of plays, the oldest first
}

// play is a script and the requests that it has answered.
type play struct {
	script Script

	mu      sync.Mutex
	gates   map[string]chan struct{}
	records []*recorder
}

// New returns an application without scripts.
func New() *Server { return &Server{plays: map[string]*play{}} }

// Serve answers on all connections of a listener until ctx is done or the listener
// fails. It closes the listener and does not wait for running requests.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		go s.serveConn(ctx, conn)
	}
}

// serveConn answers the requests of one connection, one after the other.
func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	reader := bufio.NewReaderSize(conn, 32<<10)
	for {
		_ = conn.SetDeadline(time.Now().Add(idleTimeout))
		head, err := readHead(reader)
		if err != nil {
			return
		}
		if !s.serveRequest(&request{conn: conn, reader: reader, head: head}) {
			return
		}
	}
}

// serveRequest reports whether the connection can be used for another request.
func (s *Server) serveRequest(r *request) bool {
	line, _, _ := bytes.Cut(r.head, []byte("\n"))
	method, rest, _ := strings.Cut(string(line), " ")
	match := target.FindStringSubmatch(strings.TrimSuffix(strings.Split(rest, " HTTP/")[0], "\r"))
	switch {
	case match == nil:
		return r.answer("404 Not Found", "neither /raw/<key> nor /control/<key>\n")
	case match[1] == "control":
		return s.control(r, method, match[2], match[3])
	}
	s.mu.Lock()
	p := s.plays[match[2]]
	s.mu.Unlock()
	if p == nil {
		return r.answer("404 Not Found", "no script has this key\n")
	}
	r.recorder = p.record(r.head)
	if r.recorder == nil {
		return r.answer("429 Too Many Requests", "too many requests with this key\n")
	}
	defer r.recorder.done()
	for _, step := range p.script.Steps {
		if err := r.perform(p, step); err != nil {
			return false
		}
	}
	return r.readBody() == nil
}

func (s *Server) put(key string, script Script) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.plays[key]; !known {
		if len(s.oldest) == maxKeys {
			delete(s.plays, s.oldest[0])
			s.oldest = s.oldest[1:]
		}
		s.oldest = append(s.oldest, key)
	}
	s.plays[key] = &play{script: script, gates: map[string]chan struct{}{}}
}

func (s *Server) remove(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.plays, key)
	s.oldest = slices.DeleteFunc(s.oldest, func(k string) bool { return k == key })
}

func (p *play) gate(name string) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gates[name] == nil {
		p.gates[name] = make(chan struct{})
	}
	return p.gates[name]
}

// open opens a gate of the script; an open one stays open.
func (p *play) open(name string) error {
	for _, step := range p.script.Steps {
		if step.Op == OpWait && step.Gate == name {
			gate := p.gate(name)
			p.mu.Lock()
			defer p.mu.Unlock()
			select {
			case <-gate:
			default:
				close(gate)
			}
			return nil
		}
	}
	return errors.New("the script has no such gate")
}

// record begins the record of a request. It returns nil if there are too many.
func (p *play) record(head []byte) *recorder {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.records) == maxRequests {
		return nil
	}
	r := newRecorder(head)
	p.records = append(p.records, r)
	return r
}

func (p *play) seen() []Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	records := []Record{}
	for _, r := range p.records {
		records = append(records, r.record())
	}
	return records
}

// readHead reads up to and including the empty line.
func readHead(reader *bufio.Reader) ([]byte, error) {
	var head []byte
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		head = append(head, line...)
		if len(head) > maxHead {
			return nil, errors.New("the head is too long")
		}
		if err != nil {
			continue
		}
		if bytes.HasSuffix(head, []byte("\r\n\r\n")) || bytes.HasSuffix(head, []byte("\n\n")) {
			return head, nil
		}
		if len(bytes.TrimSpace(head)) == 0 {
			head = nil // an empty line before the request line (RFC 9112, section 2.2)
		}
	}
}
