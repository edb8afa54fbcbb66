package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

// maxConsumed is the most that one request may fill or eat.
const maxConsumed = 1 << 30

// zeros is an endless stream of zeros.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// fill writes a file of zeros to the folder for temporary files, and keeps it.
func (a *app) fill(w http.ResponseWriter, r *http.Request) {
	size, err := intParam(r.URL.Query(), "bytes", 1<<20, 0, maxConsumed)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	file, err := os.CreateTemp("", "fill-")
	if err == nil {
		defer file.Close()
		_, err = io.CopyN(file, zeros{}, int64(size))
	}
	if err != nil {
		http.Error(w, fmt.Sprintf("write a file: %v", err), http.StatusInsufficientStorage)
		return
	}
	writeJSON(w, map[string]any{"bytes": size, "file": file.Name()})
}

// eat takes memory, and keeps it.
func (a *app) eat(w http.ResponseWriter, r *http.Request) {
	size, err := intParam(r.URL.Query(), "bytes", 1<<20, 0, maxConsumed)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	memory := make([]byte, size)
	for i := range memory {
		memory[i] = 1 // memory that was never written to takes no room
	}
	a.mu.Lock()
	a.eaten = append(a.eaten, memory)
	a.mu.Unlock()
	writeJSON(w, map[string]any{"bytes": size})
}
