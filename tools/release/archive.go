package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/binder-project/binder-deploy-kubernetes/tools/goimage"
)

// The archives depend on their files' contents only: modes are fixed, whatever the umask
// was, times are the commit's, and files are in the order of their names.

// writeBinaryArchive writes the archive with a platform's binary.
func (r *release) writeBinaryArchive(binary string, platform v1.Platform, source goimage.Source) error {
	return create(r.path(binaryFile(source.Version, platform)), func(file io.Writer) error {
		zipped := gzip.NewWriter(file)
		archive := tar.NewWriter(zipped)
		return errors.Join(
			addFile(archive, filepath.Join(r.root, "LICENSE"), "LICENSE", 0o644, source.Created),
			addFile(archive, binary, goimage.ServiceName, 0o755, source.Created),
			archive.Close(), zipped.Close())
	})
}

// writeTree writes an archive of the files below dir.
func writeTree(path, dir string, modified time.Time) error {
	return create(path, func(file io.Writer) error {
		archive := tar.NewWriter(file)
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			return addFile(archive, path, filepath.ToSlash(name), 0o644, modified)
		})
		return errors.Join(err, archive.Close())
	})
}

// create creates a file and lets write fill it.
func create(path string, write func(io.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}

func addFile(archive *tar.Writer, path, name string, mode int64, modified time.Time) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data)), ModTime: modified}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err = archive.Write(data)
	return err
}
