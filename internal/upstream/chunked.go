package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// chunkedBody decodes a body that is sent in chunks (RFC 9112, section 7.1). It returns
// what has arrived of a chunk, where net/http's waits for as much as its caller can
// take: an application may send a chunk in parts, with any time between them.
type chunkedBody struct {
	conn    *conn
	trailer *http.Header
	left    int64 // of the present chunk
	inside  bool  // a chunk was begun, and its line break is still to come
	err     error
}

// Read returns io.EOF once the trailer has been read.
func (b *chunkedBody) Read(p []byte) (int, error) {
	if b.err == nil && b.left == 0 {
		b.err = b.next()
	}
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	n, err := b.conn.reader.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	b.err = unexpected(err)
	return n, b.err
}

// next reads up to the data of the next chunk, or the end of the body.
func (b *chunkedBody) next() error {
	if b.inside {
		line, err := readLine(b.conn.reader)
		if err != nil {
			return unexpected(err)
		}
		if line != "" {
			return errors.New("a chunk is longer than it says")
		}
	}
	line, err := readLine(b.conn.reader)
	if err != nil {
		return unexpected(err)
	}
	size, _, _ := strings.Cut(line, ";") // extensions mean nothing to us
	size = strings.TrimRight(size, " \t")
	length, err := strconv.ParseUint(size, 16, 63)
	if err != nil || len(size) > 16 || strings.HasPrefix(size, "+") {
		return fmt.Errorf("a chunk has the invalid length %.20q", size)
	}
	b.left, b.inside = int64(length), true
	if length > 0 {
		return nil
	}
	b.conn.bound()
	trailer, err := textproto.NewReader(b.conn.reader).ReadMIMEHeader()
	b.conn.unbound()
	if err != nil {
		return fmt.Errorf("read the trailer: %w", unexpected(err))
	}
	for name, values := range trailer {
		if *b.trailer == nil {
			*b.trailer = http.Header{}
		}
		(*b.trailer)[name] = values
	}
	return io.EOF
}

// readLine reads a line that fits into the reader's buffer, without its end.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"), nil
}

// unexpected turns the end of a connection into an error: the body has not ended.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
