package proxy

import (
	"context"
	"net"
	"sync"
	"time"
)

// endPause is the most time between the ends of two WebSockets.
const endPause = 50 * time.Millisecond

// restartFrame is the close frame of a server that restarts: opcode 8, not masked, and the
// code 1012 (RFC 6455, sections 5.5.1 and 7.4, and IANA's registry of close codes).
func restartFrame() []byte { return []byte{finBit | closeOpcode, 2, 1012 >> 8, 1012 & 0xff} }

// webSockets are the WebSockets that are open.
type webSockets struct {
	mu     sync.Mutex
	open   map[*visitorSide]struct{}
	ending bool
	none   chan struct{} // told when ending and none is open
}

// add notes a WebSocket. remove forgets it.
func (s *webSockets) add(side *visitorSide) (remove func()) {
	s.mu.Lock()
	if s.open == nil {
		s.open = map[*visitorSide]struct{}{}
	}
	s.open[side] = struct{}{}
	late := s.ending
	s.mu.Unlock()
	if late {
		side.end()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, side)
		if s.ending && len(s.open) == 0 {
			select {
			case s.none <- struct{}{}:
			default: // another WebSocket came late
			}
		}
	}
}

// EndWebSockets tells every client of a WebSocket that the service restarts, one after the
// other, so that browsers do not come back all at once. It returns when all have ended, or
// the timeout is over; it cuts those that are still open then. It is called once.
func (p *Proxy) EndWebSockets(timeout time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	s := &p.sockets
	s.mu.Lock()
	s.ending, s.none = true, make(chan struct{}, 1)
	sides := make([]*visitorSide, 0, len(s.open))
	for side := range s.open {
		sides = append(sides, side)
	}
	s.mu.Unlock()
	if len(sides) == 0 {
		return
	}
	pause := min(endPause, max(0, timeout-closeTimeout)/time.Duration(len(sides)))
	for _, side := range sides {
		go side.end() // it waits for a write under way
		if pause > 0 && ctx.Err() == nil {
			time.Sleep(pause)
		}
	}
	select {
	case <-s.none:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for side := range s.open {
		side.client.Close()
		side.application.Close()
	}
}

// EndSomeWebSockets tells clients of WebSockets to open them again, at another replica: at
// most a number of those of instances that ends accepts. It returns how many it has told.
// It does not wait for their ends.
func (p *Proxy) EndSomeWebSockets(most int, ends func(id string, opened time.Time) bool) int {
	var told []*visitorSide
	p.sockets.mu.Lock()
	for side := range p.sockets.open {
		if len(told) < most && !side.leaving && ends(side.id, side.opened) {
			side.leaving = true
			told = append(told, side)
		}
	}
	p.sockets.mu.Unlock()
	for _, side := range told {
		go side.end() // it waits for a write under way, which has a deadline
	}
	return len(told)
}

// visitorSide is what an application sends to the client of a WebSocket. The close frame of
// a restart goes between two of its frames, and nothing follows it.
type visitorSide struct {
	id                  string // of the instance
	opened              time.Time
	leaving             bool // told by EndSomeWebSockets; guarded by webSockets.mu
	client, application net.Conn
	now                 func() time.Time

	mu     sync.Mutex // held while a frame is written
	frames frameScanner
	asked  bool // to end
	ended  bool
}

// Write passes on what the application sends.
func (v *visitorSide) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended {
		return len(p), nil
	}
	if !v.asked {
		v.frames.scan(p)
		return v.client.Write(p)
	}
	rest := 0 // of the frame under way
	for rest < len(p) && !v.frames.between() {
		v.frames.scan(p[rest : rest+1])
		rest++
	}
	if n, err := v.client.Write(p[:rest]); err != nil {
		return n, err
	}
	if v.frames.between() {
		v.close()
	}
	return len(p), nil
}

// end asks for the close frame. It is written at once, or after the frame under way.
func (v *visitorSide) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.asked {
		return
	}
	if v.asked = true; v.frames.between() {
		v.close()
	}
}

// isAsked reports whether this service has asked the client to end.
func (v *visitorSide) isAsked() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.asked
}

// close writes the close frame, unless the application has written one. The client's own
// close frame, which answers it, goes on to the application, which then closes.
func (v *visitorSide) close() {
	v.ended = true
	if !v.frames.closed {
		_, _ = v.client.Write(restartFrame()) // an error shows when the client is read from
	}
	_ = v.client.SetReadDeadline(v.now().Add(closeTimeout)) // fails only once it is closed
}
