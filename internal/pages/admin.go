package pages

import "net/http"

// adminView is what the admin page shows before it has the API key.
type adminView struct{ Title string }

// ServeAdmin answers with the admin page. There is nothing in it that needs the API key: its
// script asks for the key, keeps it in memory, and reads the state with it. The error is nil.
func ServeAdmin(w http.ResponseWriter, _ *http.Request) error {
	writePage(w, http.StatusOK, adminTemplate, adminView{Title: "Binder: what runs"}, neverFramed)
	return nil
}
