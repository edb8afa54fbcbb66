package gate

// Limits are what a Gate allows. 0 stands for the default that Sized computes.
type Limits struct {
	// All is the most connections of visitors.
	All int
	// PerClient is the most connections of one client, together with its requests by way of
	// trusted proxies.
	PerClient int
	// PerInstance is the most requests and WebSockets under way at one instance.
	PerInstance int
	// Heads is the most bytes of memory that the heads of requests take, beyond what each
	// connection has in any case.
	Heads int64
}

const (
	// bytesPerConnection is what a connection with a request or a WebSocket under way takes
	// at most, with the connection to the application, measured: see docs/security.md.
	bytesPerConnection = 96 << 10
	// filesPerConnection is its own, and that to the application.
	filesPerConnection = 2
	// otherFiles is what the rest of the process has open: idle connections to
	// applications (package upstream keeps 4096), the API and the cluster.
	otherFiles = 5000
	// share is the part of all connections that one client or one instance may hold: a
	// browser has about ten, and a class can share an address.
	share    = 16
	fewest   = 64 // connections, however small the memory is
	fewestOf = 64 // connections of one client or instance
)

// Sized fills in what is 0 in l, from the memory and the number of files that the process
// may use: half of the memory for connections, an eighth for heads of requests, and a
// sixteenth of all connections for each client and each instance.
func Sized(l Limits, memory, files int64) Limits {
	if l.All == 0 {
		l.All = int(max(fewest, min(memory/2/bytesPerConnection, (files-otherFiles)/filesPerConnection)))
	}
	few := min(l.All, max(fewestOf, l.All/share))
	if l.PerClient == 0 {
		l.PerClient = few
	}
	if l.PerInstance == 0 {
		l.PerInstance = few
	}
	if l.Heads == 0 {
		l.Heads = memory / 8
	}
	return l
}
