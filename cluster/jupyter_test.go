package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestJupyterImageIsKept: an image of this recipe is not built again, and one of
// another recipe is.
func TestJupyterImageIsKept(t *testing.T) {
	t.Setenv("PATH", "") // so that a build fails at once
	for _, test := range []struct {
		name, stamp string
		archive     bool
		kept        bool
	}{
		{"of this recipe", jupyterStamp(), true, true},
		{"of another recipe", "another\n", true, false},
		{"without a stamp", "", true, false},
		{"without an archive", jupyterStamp(), false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := testCluster(t)
			i := image{name: "jupyter", ref: "localhost/binder-jupyter:dev"}
			if test.archive {
				if err := writeFile(c.image(i.name), []byte("archive"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if test.stamp != "" {
				if err := writeFile(c.imageStampFile(i.name), []byte(test.stamp), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.buildJupyterImage(t.Context(), i); (err == nil) != test.kept {
				t.Errorf("got %v", err)
			}
			if isFile(c.image(i.name)) != test.archive {
				t.Error("the archive that was there has gone")
			}
			if strings.HasSuffix(c.imageStampFile(i.name), ".tar") || filepath.Dir(c.imageStampFile(i.name)) == filepath.Dir(c.image(i.name)) {
				t.Error("the stamp looks like an image")
			}
		})
	}
}

// TestReadUntilInterrupted: compressing half a gigabyte ends with ctx.
func TestReadUntilInterrupted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "files")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	file, err := openFor(ctx, path)()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := io.CopyN(io.Discard, file, 1<<19); err != nil {
		t.Fatal(err)
	}
	cancel()
	if n, err := io.Copy(io.Discard, file); !errors.Is(err, context.Canceled) || n > 0 {
		t.Errorf("read %d bytes more, and then %v", n, err)
	}
}

func TestMakeEmpty(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "work")
	for range 2 {
		if err := makeEmpty(dir); err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("it has %v, %v", entries, err)
		}
		if err := writeFile(filepath.Join(dir, "a", "b"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
