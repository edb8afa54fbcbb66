// Package podtemplate turns a PodTemplate into the pod of an instance. It reads
// every annotation of this service that a template can have, says which of them are
// invalid, and writes Events for those.
//
// It never knows who launches a pod, or when: instance.LaunchAnnotations make a pod
// somebody's instance.
package podtemplate
