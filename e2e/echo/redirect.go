package main

import (
	"net/http"
	"os"
	"strconv"
)

// redirect sends the client to another address, as an application does that wants a
// login. ${BINDER_BASE_URL} in the address stands for the base URL.
func (a *app) redirect(w http.ResponseWriter, r *http.Request) {
	address := os.Expand(r.URL.Query().Get("to"), func(name string) string { return a.env[name] })
	if address == "" {
		http.Error(w, `to="" is not an address`, http.StatusBadRequest)
		return
	}
	w.Header().Set("Location", address)
	w.WriteHeader(http.StatusFound)
}

// status answers with the code that is asked for.
func (a *app) status(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(r.URL.Query().Get("code"))
	if err != nil || code < 200 || code > 599 {
		http.Error(w, `code="" is not from 200 to 599`, http.StatusBadRequest)
		return
	}
	w.WriteHeader(code)
}
