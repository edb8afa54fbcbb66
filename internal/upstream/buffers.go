package upstream

import (
	"bufio"
	"sync"
)

// BufferSize is the size of a buffer in bytes.
const BufferSize = 32 << 10

// Buffers lends the buffers that bodies are copied with. The zero value is ready.
type Buffers struct{ pool sync.Pool }

// Get lends a buffer.
func (b *Buffers) Get() *[BufferSize]byte {
	if buffer, ok := b.pool.Get().(*[BufferSize]byte); ok {
		return buffer
	}
	return new([BufferSize]byte)
}

// Put takes a buffer back. It ignores nil.
func (b *Buffers) Put(buffer *[BufferSize]byte) {
	if buffer != nil {
		b.pool.Put(buffer)
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
