package protocol

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// filled returns a status. The bits of which say which of its fields are set: to text, or
// to 7. It knows no field by name, so a field that appendJSON forgets is found.
func filled(text string, which int) StatusResponse {
	var status StatusResponse
	fields := reflect.ValueOf(&status).Elem()
	for i := range fields.NumField() {
		switch field := fields.Field(i); {
		case which>>i&1 == 0:
		case field.Kind() == reflect.String:
			field.SetString(text)
		default:
			field.SetInt(7)
		}
	}
	return status
}

func wantAsMarshalled(t testing.TB, status StatusResponse) {
	t.Helper()
	want, err := json.Marshal(status)
	if got := status.appendJSON([]byte("before")); err != nil || string(got) != "before"+string(want) {
		t.Errorf("got\n%s\nwant\n%s (%v)", got, want, err)
	}
}

func TestStatusAsMarshalled(t *testing.T) {
	for _, text := range []string{
		"", "plain text", `"`, `\`, "/", "<script>&'", "\x00", "\x1f", "\x7f", "a\r\n\t\b\f", "é", "\u2028\u2029", "\xff", "a\xc3", "\xed\xa0\x80", "\U0001F600", "\ufffd",
		`{"id":"x"}`, `\u0041`, strings.Repeat("long ", 1000), strings.Repeat(`\"`, 1000),
	} {
		wantAsMarshalled(t, filled(text, -1))
	}
	for which := range 1 << reflect.TypeFor[StatusResponse]().NumField() {
		wantAsMarshalled(t, filled("x", which))
	}
	status := filled("x", 0)
	for _, status.Restarts = range []int32{-1, 1, 1<<31 - 1, -1 << 31} {
		wantAsMarshalled(t, status)
	}
}

// FuzzStatusAsMarshalled checks that a status is written as json.Marshal does.
func FuzzStatusAsMarshalled(f *testing.F) {
	f.Add("x", int32(0), -1)
	f.Add("<\xff\u2028\"\\\x00é", int32(-3), 0x155)
	f.Fuzz(func(t *testing.T, text string, restarts int32, which int) {
		status := filled(text, which)
		status.Restarts = restarts
		wantAsMarshalled(t, status)
	})
}

func TestWriteStatusAsJSON(t *testing.T) {
	status := filled("x", -1)
	got, want := httptest.NewRecorder(), httptest.NewRecorder()
	WriteStatus(got, &status)
	WriteJSON(want, http.StatusOK, status)
	if got.Code != want.Code || got.Body.String() != want.Body.String() || !reflect.DeepEqual(got.Header(), want.Header()) {
		t.Errorf("got %d %v %s, want %d %v %s", got.Code, got.Header(), got.Body, want.Code, want.Header(), want.Body)
	}
	got.Header().Add("Cache-Control", "private") // fields do not share memory
	if value := got.Header().Get("X-Content-Type-Options"); value != "nosniff" {
		t.Errorf("X-Content-Type-Options is %q after a change of another field", value)
	}
}

// instances returns n instances, each of some 100 bytes in JSON. Every third has a location.
func instances(n int) []instance.Instance {
	all := []instance.Instance{}
	for i := range n {
		inst := instance.Instance{ID: kubetest.ID(i), Template: "jupyter", Status: instance.StatusFailed, Message: "naïve", Detail: "told"}
		if i%3 == 0 {
			inst.Status = instance.StatusDeployed
		}
		all = append(all, inst)
	}
	return all
}

func locate(id string) string { return "hub.example/<user>/" + id }

// statuses is what WriteList has to write.
func statuses(all []instance.Instance) []StatusResponse {
	list := []StatusResponse{}
	for _, inst := range all {
		status := NewStatusResponse(inst, locate(inst.ID))
		status.Detail = inst.Detail
		list = append(list, status)
	}
	return list
}

func encoded(all []instance.Instance) iter.Seq[*Encoded] {
	return func(yield func(*Encoded) bool) {
		for _, inst := range all {
			if !yield(Encode(inst)) {
				return
			}
		}
	}
}

// A list is what WriteJSON would write, of any length, compressed or not.
func TestWriteList(t *testing.T) {
	for n, long := range map[int]bool{0: false, 1: false, 12: false, 30: true, 500: true, 3000: true} {
		for accepts, wanted := range map[string]bool{"": false, "gzip": true, "br": false} {
			r, got, want := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder(), httptest.NewRecorder()
			r.Header.Set("Accept-Encoding", accepts)
			got.Header().Add("Vary", "Origin")
			WriteList(got, r, encoded(instances(n)), locate)
			WriteJSON(want, http.StatusOK, statuses(instances(n)))
			name, body := fmt.Sprintf("%d statuses for a client that accepts %q", n, accepts), got.Body.String()
			compressed := got.Header().Get("Content-Encoding") == "gzip"
			if compressed != (long && wanted) {
				t.Errorf("%s: compressed is %t", name, compressed)
			}
			if compressed {
				if len(body) > want.Body.Len()/4 {
					t.Errorf("%s: %d bytes were compressed to %d", name, want.Body.Len(), len(body))
				}
				body = unzip(t, body)
			}
			if got.Code != 200 || body != want.Body.String() {
				t.Errorf("%s: got %d with %d bytes, want %d bytes", name, got.Code, len(body), want.Body.Len())
			}
			for field, value := range map[string]string{"Vary": "Origin, Accept-Encoding", "Content-Type": "application/json", "Cache-Control": "no-store"} {
				if sent := strings.Join(got.Header().Values(field), ", "); sent != value {
					t.Errorf("%s: %s is %q, want %q", name, field, sent, value)
				}
			}
		}
	}
}

// A status that is kept is sent as any other, but only to those who may see it and do not wait.
func TestWriteKept(t *testing.T) {
	id, locations := kubetest.ID(1), func(string) func(string) string { return locate }
	plain := instance.Instance{ID: id, Template: "jupyter", Status: instance.StatusDeployed, Message: "naïve"}
	failed, detailed := plain, plain
	failed.Status, detailed.Detail = instance.StatusFailed, "told"
	for name, test := range map[string]struct {
		inst   instance.Instance
		id     string
		header []string
		want   bool
	}{
		"an instance with a location":    {inst: plain, id: id, want: true},
		"one without":                    {inst: failed, id: id, want: true},
		"one with a detail":              {inst: detailed, id: id},
		"no id":                          {inst: plain, id: "x"},
		"a client that waits":            {inst: plain, id: id, header: []string{"Prefer", "wait=1"}},
		"one that wants to hear changes": {inst: plain, id: id, header: []string{"Accept", "text/event-stream"}},
	} {
		r, got, want := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder(), httptest.NewRecorder()
		r.SetPathValue("id", test.id)
		r.SetPathValue("template", "jupyter")
		for i := 0; i < len(test.header); i += 2 {
			r.Header.Set(test.header[i], test.header[i+1])
		}
		kept := func(template, asked string) (*Encoded, bool) {
			return Encode(test.inst), template == "jupyter" && asked == id
		}
		if wrote := WriteKept(got, r, kept, locations); wrote != test.want || wrote != (got.Body.Len() > 0) {
			t.Errorf("%s: answered is %t with %q, want %t", name, wrote, got.Body, test.want)
			continue
		}
		if status := NewStatusResponse(test.inst, locate(id)); test.want {
			WriteStatus(want, &status)
			if got.Body.String() != want.Body.String() || !reflect.DeepEqual(got.Header(), want.Header()) {
				t.Errorf("%s: got %v %s, want %v %s", name, got.Header(), got.Body, want.Header(), want.Body)
			}
		}
	}
}

func unzip(t testing.TB, text string) string {
	t.Helper()
	reader, err := gzip.NewReader(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

// gone is a client that has gone after some writes.
type gone struct {
	*httptest.ResponseRecorder
	writes int
}

func (g *gone) Write(p []byte) (int, error) {
	if g.writes--; g.writes < 0 {
		return 0, errors.New("broken pipe")
	}
	return len(p), nil
}

// No more of a list is made than a client takes, nor is it gathered in memory.
func TestWriteListStops(t *testing.T) {
	for _, accepts := range []string{"", "gzip"} {
		r, made := httptest.NewRequest(http.MethodGet, "/", nil), 0
		r.Header.Set("Accept-Encoding", accepts)
		WriteList(&gone{httptest.NewRecorder(), 2}, r, func(yield func(*Encoded) bool) {
			for made = 1; yield(Encode(instance.Instance{Message: strings.Repeat(fmt.Sprint(made), 100)})); made++ {
				if made > 1_000_000 {
					t.Fatal("the list goes on")
				}
			}
		}, locate)
		if made < 2 {
			t.Errorf("only %d statuses were made", made)
		}
	}
}

func TestAcceptsGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip": true, "GZip": true, "x-gzip": true, "br, gzip": true, "deflate,gzip;q=1.0": true, "gzip;q=0.001": true, "gzip ; q=0.5": true,
		"*": true, "*;q=0": false, "gzip;q=0": false, "gzip;q=0.000": false, "gzip;q=0, *": false, "*, gzip;q=0": false, "*;q=0, gzip": true, "identity": false,
		"gzip, identity": true, "gzip;q=0.5, identity": false, "gzip;q=0.5, identity;q=0.4": true, "*;q=0.3, identity;q=0.7": false, "identity;q=0, gzip;q=0.1": true,
		"gzipped": false, "gzip;q=": false, "gzip;q=x": false, "gzip;q=NaN": false, "gzip;q=-1": false, "gzip;level=1": false, "\"gzip\"": false, ",,;q=1": false,
	} {
		if got := acceptsGzip([]string{header}); got != want {
			t.Errorf("%q: got %t, want %t", header, got, want)
		}
	}
	if !acceptsGzip([]string{"br", "gzip"}) || acceptsGzip(nil) {
		t.Error("several fields are one list, and none names nothing")
	}
}
