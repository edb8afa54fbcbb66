package upstream

import (
	"bufio"
	"sync"
	"sync/atomic"
)

const (
	// smallBuffer is the size of most buffers, in bytes.
	smallBuffer = 32 << 10
	// largeBuffer is that of buffers for transfers that fill small ones.
	largeBuffer = 128 << 10
	// maxLarge is the most large buffers that are lent at a time. A client that reads slowly
	// on purpose keeps one.
	maxLarge = 8
)

// Buffers lends the buffers that bodies are copied with. The zero value is ready.
type Buffers struct {
	small, large sync.Pool
	lent         atomic.Int64 // large ones
}

// Get lends a buffer.
func (b *Buffers) Get() []byte {
	if buffer, ok := b.small.Get().(*[smallBuffer]byte); ok {
		return buffer[:]
	}
	return make([]byte, smallBuffer)
}

// Next takes back a buffer of which a read has filled n bytes, and lends one for the next
// read: a large one after a small one that was full, while there are some.
func (b *Buffers) Next(buffer []byte, n int) []byte {
	switch {
	case len(buffer) == smallBuffer && n == smallBuffer && b.lent.Load() < maxLarge:
		b.Put(buffer)
		b.lent.Add(1)
		if large, ok := b.large.Get().(*[largeBuffer]byte); ok {
			return large[:]
		}
		return make([]byte, largeBuffer)
	case len(buffer) == largeBuffer && n <= smallBuffer:
		b.Put(buffer)
		return b.Get()
	}
	return buffer
}

// Put takes a buffer back. It ignores nil.
func (b *Buffers) Put(buffer []byte) {
	switch len(buffer) {
	case smallBuffer:
		b.small.Put((*[smallBuffer]byte)(buffer))
	case largeBuffer:
		b.lent.Add(-1)
		b.large.Put((*[largeBuffer]byte)(buffer))
	}
}

// headBuffers lends the buffers that connections read and write heads with. Idle
// connections have none. The zero value is ready.
type headBuffers struct{ readers, writers sync.Pool }

// lend gives a connection its buffers.
func (b *headBuffers) lend(c *conn) {
	var ok bool
	if c.reader, ok = b.readers.Get().(*bufio.Reader); !ok {
		c.reader = bufio.NewReader(nil)
	}
	if c.writer, ok = b.writers.Get().(*bufio.Writer); !ok {
		c.writer = bufio.NewWriter(nil)
	}
	c.reader.Reset(c)
	c.writer.Reset(c)
}

// takeBack takes the buffers of a connection that nothing uses any more.
func (b *headBuffers) takeBack(c *conn) {
	c.reader.Reset(nil)
	c.writer.Reset(nil)
	b.readers.Put(c.reader)
	b.writers.Put(c.writer)
	c.reader, c.writer = nil, nil
}
