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

// TestJupyterImageIsKept checks that the image is built again only if its recipe
// changed or a file is missing.
func TestJupyterImageIsKept(t *testing.T) {
	t.Setenv("PATH", "") // makes every build fail at once
	for _, test := range []struct {
		name, stamp string
		archive     bool
		kept        bool
	}{
		{"same recipe", jupyterStamp(), true, true},
		{"other recipe", "another\n", true, false},
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
				t.Error("the existing archive was removed")
			}
			if strings.HasSuffix(c.imageStampFile(i.name), ".tar") || filepath.Dir(c.imageStampFile(i.name)) == filepath.Dir(c.image(i.name)) {
				t.Error("the stamp looks like an image")
			}
		})
	}
}

// TestReadUntilInterrupted checks that reads fail once ctx is done, so that an
// interrupt stops the compression of half a gigabyte.
func TestReadUntilInterrupted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "files")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	file, err := openUntilDone(ctx, path)()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := io.CopyN(io.Discard, file, 1<<19); err != nil {
		t.Fatal(err)
	}
	cancel()
	if n, err := io.Copy(io.Discard, file); !errors.Is(err, context.Canceled) || n > 0 {
		t.Errorf("read %d more bytes, then got %v", n, err)
	}
}

func TestMakeEmptyDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "work")
	for range 2 {
		if err := makeEmptyDir(dir); err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("the directory has %v, %v", entries, err)
		}
		if err := writeFile(filepath.Join(dir, "a", "b"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
