// Package ext has the types by which others extend Traefik's configuration, without any
// extension. Traefik's releases have it as a folder of its repository only.
package ext

// HTTP extends the HTTP configuration.
type HTTP struct{}

// Router extends a router.
type Router struct{}

// RouterIng extends the annotations of an Ingress.
type RouterIng struct{}

// ToRouter returns the extension of the Ingress's router.
func (RouterIng) ToRouter() Router { return Router{} }
