// Package kubetest has what tests of this service share: pods and templates in
// every state, and one fake API server. Only tests import it.
package kubetest
