package harness

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// serviceUser is the service's user name at the API server.
const serviceUser = "system:serviceaccount:" + Namespace + ":" + deploymentName

// unusedRights are rights that the service has and no run can be sure to use, each
// with the reason.
var unusedRights = map[string]string{
	"list pods in " + InstancesNamespace:              watchList,
	"list podtemplates in " + InstancesNamespace:      watchList,
	"list resourcequotas in " + InstancesNamespace:    watchList,
	"list events in " + InstancesNamespace:            watchList,
	"list daemonsets in " + InstancesNamespace:        watchList,
	"list leases in " + Namespace:                     watchList,
	"list services in " + Namespace + " binder-proxy": watchList,
}

// watchList is why an informer does not list.
const watchList = "a watch gives the list, too, unless the API server is older than the feature WatchList"

// auditEvent is the part of an audit event that the check of rights needs. See
// https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/
type auditEvent struct {
	Verb       string
	RequestURI string
	User       struct{ Username string }
	ObjectRef  struct{ APIGroup, Resource, Namespace, Name string }
	// Annotations have the decision, allow or forbid, under decisionKey.
	Annotations              map[string]string
	RequestReceivedTimestamp time.Time
}

const decisionKey = "authorization.k8s.io/decision"

// right is a right on a resource. Name is "" for a right on all names.
type right struct{ namespace, group, resource, verb, name string }

func (r right) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s in %s %s", r.verb, r.resource, r.namespace, r.name))
}

// checkRights compares the service's requests with its Roles. A denied request is an
// error: the Roles lack a right. If all tests ran, a right that no request used is
// an error, too.
//
// A refusal by a quota or by pod security has the code 403 as well, but counts as
// allowed: the annotation tells them apart.
func (s *Suite) checkRights(all bool) error {
	events, err := s.auditEvents()
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(s.out, "e2e: this is not the local cluster and has no audit log; the service's rights are not checked")
		return nil
	}
	if err != nil {
		return err
	}
	objects, err := s.render()
	if err != nil {
		return err
	}
	granted, err := grantedRights(objects)
	if err != nil {
		return err
	}
	denied, unused := compareRights(granted, events)
	fmt.Fprintf(s.out, "e2e: %d requests of the service in the audit log; rights not used: %q\n", len(events), unused)
	var errs []error
	for _, request := range denied {
		errs = append(errs, fmt.Errorf("the service was denied: %s", request))
	}
	for _, r := range unused {
		if all && unusedRights[r] == "" {
			errs = append(errs, fmt.Errorf("the service has a right that it did not use: %s", r))
		}
	}
	return errors.Join(errs...)
}

// compareRights returns the requests that were denied, and the rights that no
// request used.
func compareRights(granted []right, events []auditEvent) (denied, unused []string) {
	refused, used := map[string]bool{}, map[right]bool{}
	for _, event := range events {
		if event.Annotations[decisionKey] == "forbid" {
			refused[event.Verb+" "+event.RequestURI] = true
			continue
		}
		r := right{event.ObjectRef.Namespace, event.ObjectRef.APIGroup, event.ObjectRef.Resource, event.Verb, ""}
		used[r] = true
		r.name = event.ObjectRef.Name
		used[r] = true
	}
	for _, r := range granted {
		if !used[r] {
			unused = append(unused, r.String())
		}
	}
	return slices.Sorted(maps.Keys(refused)), unused
}

// grantedRights returns the rights of the Roles.
func grantedRights(objects []*unstructured.Unstructured) ([]right, error) {
	var rights []right
	for _, object := range objects {
		if object.GetKind() != "Role" {
			continue
		}
		var role rbacv1.Role
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &role); err != nil {
			return nil, fmt.Errorf("read the Role %s: %w", object.GetName(), err)
		}
		for _, rule := range role.Rules {
			names := rule.ResourceNames
			if len(names) == 0 {
				names = []string{""}
			}
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						for _, name := range names {
							rights = append(rights, right{role.Namespace, group, resource, verb, name})
						}
					}
				}
			}
		}
	}
	return rights, nil
}

// auditEvents returns the service's requests since the suite began, from the local
// cluster's audit log and the one that was rotated. The error is fs.ErrNotExist if this
// is not the local cluster.
func (s *Suite) auditEvents() ([]auditEvent, error) {
	logs := filepath.Join(s.Kube.ClusterDir(), "run", "logs")
	if _, err := os.Stat(logs); err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(logs, "audit*.log"))
	if err == nil && len(paths) == 0 {
		err = errors.New("there is none: start the cluster again")
	}
	if err != nil {
		return nil, fmt.Errorf("read the audit log in %s: %w", logs, err)
	}
	var events []auditEvent
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		defer file.Close()
		lines := bufio.NewScanner(file)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var event auditEvent
			if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
				return nil, fmt.Errorf("parse the audit log %s: %w", path, err)
			}
			if event.User.Username == serviceUser && !event.RequestReceivedTimestamp.Before(s.began) {
				events = append(events, event)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read the audit log %s: %w", path, err)
		}
	}
	return events, nil
}
