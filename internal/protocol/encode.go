package protocol

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"strconv"
	"strings"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (
	// flushAt is how many bytes of a list are gathered before they are written: each write
	// wakes the client, which costs more than the copy.
	flushAt = 128 << 10
	// minCompressed is the least size of a list, in bytes, that is compressed: two packets.
	// What is smaller is not sent sooner.
	minCompressed = 2 << 10
)

// WriteStatus answers with the description of one instance. It writes what WriteJSON
// does, in a fraction of the time: clients that wait for a launch ask for nothing else.
func WriteStatus(w http.ResponseWriter, status *StatusResponse) {
	setJSON(w.Header())
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(append(status.appendJSON(make([]byte, 0, 512)), '\n')) // it fails only when the client has gone
}

// Encoded is an instance in JSON, with its detail. It lacks the location, which depends on
// the host by which a client reached the API.
type Encoded struct {
	id       string
	text     string
	cut      int  // where the location belongs in the text; 0 if there is none
	detailed bool // the text has a detail, which only holders of the API key may see
}

// idAt is where the id stands in the text, unless something in it is escaped.
const idAt = len(`{"id":"`)

// Encode returns an instance in JSON.
func Encode(inst instance.Instance) *Encoded {
	status := NewStatusResponse(inst, "")
	status.Detail = inst.Detail
	text, cut := status.appendHead(make([]byte, 0, 512)), 0
	if inst.Status == instance.StatusDeployed {
		cut = len(text)
	}
	encoded := &Encoded{inst.ID, string(status.appendTail(text)), cut, inst.Detail != ""}
	// As a part of the text, the id is fetched from memory with it.
	if id := encoded.text[min(idAt, len(encoded.text)):]; strings.HasPrefix(id, inst.ID) {
		encoded.id = id[:len(inst.ID)]
	}
	return encoded
}

// WriteKept answers a request for the present status of the instance that its path names. It
// reports whether it has: the client must not want to wait, kept must know the instance, and
// all of that must be for everybody. What it writes is what WriteStatus does.
func WriteKept(w http.ResponseWriter, r *http.Request, kept func(template, id string) (*Encoded, bool), locations func(requestHost string) func(id string) string) bool {
	id := r.PathValue("id")
	if !instance.ValidID(id) || len(r.Header["Prefer"]) > 0 || AcceptsEvents(r) {
		return false
	}
	encoded, ok := kept(r.PathValue("template"), id)
	if !ok || encoded.detailed {
		return false
	}
	setJSON(w.Header())
	_, _ = io.WriteString(w, encoded.text[:encoded.cut]) // writes fail only when the client has gone
	if encoded.cut > 0 {
		_, _ = w.Write(appendLocation(make([]byte, 0, 128), locations(r.Host)(id)))
	}
	_, _ = io.WriteString(w, encoded.text[encoded.cut:])
	_, _ = io.WriteString(w, "\n")
	return true
}

// appendJSON appends what json.Marshal returns for a status with a location.
func (e *Encoded) appendJSON(to []byte, locate func(id string) string) []byte {
	to = append(to, e.text[:e.cut]...)
	if e.cut > 0 {
		to = appendLocation(to, locate(e.id))
	}
	return append(to, e.text[e.cut:]...)
}

// WriteList answers with the descriptions of many instances and their details, compressed if
// the client accepts that. locate returns where an instance is. They are written one after
// another, so a list of thousands takes little memory.
func WriteList(w http.ResponseWriter, r *http.Request, instances iter.Seq[*Encoded], locate func(id string) string) {
	setJSON(w.Header())
	w.Header().Add("Vary", "Accept-Encoding")
	l := list{w: w, compress: acceptsGzip(r.Header.Values("Accept-Encoding"))}
	l.text = append(make([]byte, 0, flushAt+flushAt/8), '[')
	for encoded := range instances {
		if l.text = encoded.appendJSON(l.text, locate); len(l.text) >= flushAt && l.flush() != nil {
			return // the client has gone
		}
		l.text = append(l.text, ',')
	}
	if last := len(l.text) - 1; last >= 0 && l.text[last] == ',' {
		l.text = l.text[:last]
	}
	l.text = append(l.text, "]\n"...)
	if l.flush() == nil && l.gzip != nil {
		_ = l.gzip.Close() // it fails only when the client has gone
	}
}

// list is a list that is being written.
type list struct {
	w        http.ResponseWriter
	compress bool
	gzip     *gzip.Writer // once something was compressed
	text     []byte       // that was not written yet
	begun    bool
}

// flush writes the text. With the first text it is known whether the list is long enough
// to be compressed.
func (l *list) flush() error {
	if !l.begun {
		l.begun = true
		if l.compress && len(l.text) >= minCompressed {
			l.w.Header().Set("Content-Encoding", "gzip")
			l.gzip, _ = gzip.NewWriterLevel(l.w, gzip.BestSpeed) // fails only for an invalid level
		}
	}
	out := io.Writer(l.w)
	if l.gzip != nil {
		out = l.gzip
	}
	_, err := out.Write(l.text)
	l.text = l.text[:0]
	return err
}

// setJSON sets the header fields of every JSON answer. They are set in the form that
// Header.Set gives them.
func setJSON(header http.Header) {
	values := []string{"application/json", "no-store", "nosniff"}
	header["Content-Type"], header["Cache-Control"], header["X-Content-Type-Options"] = values[0:1:1], values[1:2:2], values[2:3:3]
}

// appendJSON appends what json.Marshal returns for a status. It does without reflection,
// which takes most of json.Marshal's time.
func (s *StatusResponse) appendJSON(to []byte) []byte {
	return s.appendTail(appendLocation(s.appendHead(to), s.Location))
}

// appendHead appends what comes before the location.
func (s *StatusResponse) appendHead(to []byte) []byte {
	to = appendString(append(to, `{"id":`...), s.ID)
	return appendString(append(to, `,"template-name":`...), s.TemplateName)
}

func appendLocation(to []byte, location string) []byte {
	return appendField(to, `,"location":`, location)
}

// appendTail appends what comes after the location.
func (s *StatusResponse) appendTail(to []byte) []byte {
	to = appendString(append(to, `,"status":`...), string(s.Status))
	to = appendField(to, `,"reason":`, s.Reason)
	to = appendField(to, `,"message":`, s.Message)
	to = appendField(to, `,"fault":`, string(s.Fault))
	to = appendField(to, `,"detail":`, s.Detail)
	if s.Restarts != 0 {
		to = strconv.AppendInt(append(to, `,"restarts":`...), int64(s.Restarts), 10)
	}
	to = appendField(to, `,"restart-reason":`, s.RestartReason)
	to = appendField(to, `,"last-activity":`, s.LastActivity)
	to = appendField(to, `,"last-activity-source":`, string(s.LastActivitySource))
	to = appendField(to, `,"cull-at":`, s.CullAt)
	return append(to, '}')
}

// appendField appends the name and the value of a field, if the value is not empty.
func appendField(to []byte, name, value string) []byte {
	if value == "" {
		return to
	}
	return appendString(append(to, name...), value)
}

// appendString appends a JSON string. Most have nothing to escape; json.Marshal knows how
// to write the others.
func appendString(to []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			escaped, _ := json.Marshal(s) // a string always has a form in JSON
			return append(to, escaped...)
		}
	}
	to = append(to, '"')
	to = append(to, s...)
	return append(to, '"')
}
