package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDebianImageIsKept checks that an image is built again only if its definition
// changed or a file is missing.
func TestDebianImageIsKept(t *testing.T) {
	t.Setenv("PATH", "") // makes every build fail at once
	source := t.TempDir()
	if err := writeFile(filepath.Join(source, "app.js"), []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	definition := debianImage{recipe: []string{"--variant=minbase"}, config: debianConfig("/", "app"), source: source}
	same := stampOf(t, definition)
	for _, test := range []struct {
		name, stamp string
		archive     bool
		kept        bool
	}{
		{"same definition", same, true, true},
		{"other definition", "another\n", true, false},
		{"without a stamp", "", true, false},
		{"without an archive", same, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := testCluster(t)
			i := image{name: "apps", ref: "localhost/binder-apps:dev"}
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
			if err := c.buildDebianImage(t.Context(), i, definition); (err == nil) != test.kept {
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

// TestDebianImageStamp checks that everything that makes an image is in its stamp,
// and nothing else.
func TestDebianImageStamp(t *testing.T) {
	source := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := writeFile(filepath.Join(source, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("app.js", "1")
	definition := debianImage{recipe: []string{"--variant=minbase"}, config: debianConfig("/", "app"), source: source}
	first := stampOf(t, definition)
	write(filepath.Join("node_modules", "x.js"), "installed to try the application")
	if stampOf(t, definition) != first {
		t.Error("a subdirectory changed the stamp")
	}
	seen := []string{first}
	differs := func(what string, d debianImage) {
		t.Helper()
		stamp := stampOf(t, d)
		if slices.Contains(seen, stamp) {
			t.Errorf("%s did not change the stamp", what)
		}
		seen = append(seen, stamp)
	}
	differs("another option", debianImage{recipe: []string{"--variant=buildd"}, config: definition.config, source: source})
	differs("another command", debianImage{recipe: definition.recipe, config: debianConfig("/", "b"), source: source})
	write("app.js", "2")
	differs("another content of a file", definition)
	write("b.js", "2")
	differs("another file", definition)
	definition.source = filepath.Join(source, "missing")
	if _, err := definition.stamp(); err == nil {
		t.Error("no error without the source")
	}
}

func stampOf(t *testing.T, d debianImage) string {
	t.Helper()
	stamp, err := d.stamp()
	if err != nil {
		t.Fatal(err)
	}
	return stamp
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
