//go:build e2e

package e2e

import (
	"compress/gzip"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestNginx reads a directory that nginx serves, with ranges, conditions and
// compression (RFC 9110, sections 8.4, 13 and 14).
func TestNginx(t *testing.T) {
	t.Parallel()
	inBothModes(t, "nginx", []string{"sh", "nginx.sh"}, func(t *testing.T, app *harness.Instance) {
		v := newVisitor(t, app)
		whole := v.get("numbers.txt")
		require.Equal(t, http.StatusOK, whole.StatusCode)
		require.Equal(t, numbers(), whole.text)
		size, tag, date := len(whole.text), whole.Header.Get("Etag"), whole.Header.Get("Last-Modified")
		assert.EqualValues(t, size, whole.ContentLength)
		assert.Equal(t, "bytes", whole.Header.Get("Accept-Ranges"))
		require.NotEmpty(t, tag)

		t.Run("ranges and conditions", func(t *testing.T) {
			v := v.in(t)
			for _, test := range []struct {
				name   string
				header []string
				code   int
				text   string
				ranged string // Content-Range
			}{
				{"first bytes", []string{"Range", "bytes=0-9"}, http.StatusPartialContent, whole.text[:10], fmt.Sprintf("bytes 0-9/%d", size)},
				{"last bytes", []string{"Range", "bytes=-7"}, http.StatusPartialContent, whole.text[size-7:], fmt.Sprintf("bytes %d-%d/%d", size-7, size-1, size)},
				{"If-Range that holds", []string{"Range", "bytes=2-3", "If-Range", tag}, http.StatusPartialContent, whole.text[2:4], fmt.Sprintf("bytes 2-3/%d", size)},
				{"If-Range that does not", []string{"Range", "bytes=2-3", "If-Range", `"another"`}, http.StatusOK, whole.text, ""},
				{"If-Range with a date", []string{"Range", "bytes=2-3", "If-Range", date}, http.StatusPartialContent, whole.text[2:4], fmt.Sprintf("bytes 2-3/%d", size)},
				{"If-None-Match", []string{"If-None-Match", tag}, http.StatusNotModified, "", ""},
				{"If-Modified-Since", []string{"If-Modified-Since", date}, http.StatusNotModified, "", ""},
			} {
				got := v.get("numbers.txt", test.header...)
				assert.Equal(t, test.code, got.StatusCode, test.name)
				assert.True(t, test.text == got.text, "%s: %d bytes, want %d", test.name, len(got.text), len(test.text))
				assert.Equal(t, test.ranged, got.Header.Get("Content-Range"), test.name)
				assert.Equal(t, tag, got.Header.Get("Etag"), test.name)
			}
			beyond := v.get("numbers.txt", "Range", "bytes=99999999-")
			assert.Equal(t, http.StatusRequestedRangeNotSatisfiable, beyond.StatusCode)
			assert.Equal(t, fmt.Sprintf("bytes */%d", size), beyond.Header.Get("Content-Range"))
			assert.Equal(t, http.StatusPreconditionFailed, v.get("numbers.txt", "If-Match", `"another"`).StatusCode)
			head := v.do(http.MethodHead, "numbers.txt", "")
			assert.EqualValues(t, size, head.ContentLength)
		})
		t.Run("several ranges", func(t *testing.T) {
			v := v.in(t)
			got := v.get("numbers.txt", "Range", "bytes=0-1,100-103")
			require.Equal(t, http.StatusPartialContent, got.StatusCode)
			kind, parameters, err := mime.ParseMediaType(got.Header.Get("Content-Type"))
			require.NoError(t, err)
			require.Equal(t, "multipart/byteranges", kind)
			parts := multipart.NewReader(strings.NewReader(got.text), parameters["boundary"])
			for _, want := range []string{whole.text[:2], whole.text[100:104]} {
				part, err := parts.NextPart()
				require.NoError(t, err)
				data, err := io.ReadAll(part)
				require.NoError(t, err)
				assert.Equal(t, want, string(data))
			}
			_, err = parts.NextPart()
			assert.ErrorIs(t, err, io.EOF)
		})
		t.Run("compression", func(t *testing.T) {
			v := v.in(t)
			got := v.get("numbers.txt", "Accept-Encoding", "gzip")
			require.Equal(t, "gzip", got.Header.Get("Content-Encoding"))
			assert.Equal(t, "W/"+tag, got.Header.Get("Etag"))
			reader, err := gzip.NewReader(strings.NewReader(got.text))
			require.NoError(t, err)
			text, err := io.ReadAll(reader)
			require.NoError(t, err)
			assert.True(t, whole.text == string(text))
		})
		t.Run("directories", func(t *testing.T) {
			v := v.in(t)
			assert.Contains(t, v.get("/").text, `<a href="a%20dir/">`)
			// nginx redirects to the visitor's host, but with the port that it listens on.
			listing := v.get("a%20dir")
			assert.Equal(t, v.home+"a%20dir/", listing.Request.URL.String())
			assert.Contains(t, listing.text, `<a href="file.txt">`)
			assert.Equal(t, "inside\n", v.get("a%20dir/file.txt").text)
			assert.Equal(t, http.StatusNotFound, v.get("a%20dir/missing").StatusCode)
		})
	})
}

// numbers returns the file that nginx.sh makes.
func numbers() string {
	var text strings.Builder
	for i := range 100_000 {
		fmt.Fprintln(&text, i+1)
	}
	return text.String()
}
