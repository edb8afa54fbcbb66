package upstream

import "sync"

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
