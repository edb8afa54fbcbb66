package main

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFill(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	url := serve(t)
	assert.Equal(t, http.StatusOK, get(t, url+"/user/1/fill?bytes=100000").StatusCode)
	files, err := filepath.Glob(filepath.Join(folder, "*"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	info, err := os.Stat(files[0])
	require.NoError(t, err)
	assert.EqualValues(t, 100000, info.Size())

	t.Setenv("TMPDIR", filepath.Join(folder, "missing"))
	assert.Equal(t, http.StatusInsufficientStorage, get(t, url+"/fill").StatusCode)
	assert.Equal(t, http.StatusBadRequest, get(t, url+"/fill?bytes=-1").StatusCode)
}

func TestEat(t *testing.T) {
	url := serve(t)
	assert.JSONEq(t, `{"bytes":1000}`, get(t, url+"/eat?bytes=1000").body)
	assert.Equal(t, http.StatusBadRequest, get(t, url+"/eat?bytes=x").StatusCode)
}
