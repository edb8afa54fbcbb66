package podtemplate_test

import (
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

func TestPoolSize(t *testing.T) {
	for value, want := range map[string]podtemplate.PoolBounds{"0": {}, "3": {3, 3}, "2..20": {2, 20}, "0..1000": {0, 1000}, "5..5": {5, 5}} {
		got, err := podtemplate.PoolSize(kubetest.Template("t", kubetest.WithTemplateAnnotation(instance.PoolSizeAnnotation, value)))
		if err != nil || got != want {
			t.Errorf("%q: got %+v, %v", value, got, err)
		}
	}
	if got, err := podtemplate.PoolSize(kubetest.Template("t")); err != nil || got != (podtemplate.PoolBounds{}) {
		t.Errorf("without the annotation: got %+v, %v", got, err)
	}
	if got, err := podtemplate.PoolSize(allInvalid("t")); err == nil || got != (podtemplate.PoolBounds{}) {
		t.Errorf("an invalid size is %+v, %v", got, err)
	}
}

func TestPoolSchedule(t *testing.T) {
	const schedule = `Mon-Fri 08:00-18:00 Europe/Berlin 10
		Tue,Thu 10:00-12:00 Europe/Berlin 30; Fri-Sun 22:00-02:00 America/New_York 5
		Wed 00:00-24:00 UTC 1`
	floors, err := podtemplate.PoolFloors(kubetest.Template("t", kubetest.WithTemplateAnnotation(instance.PoolScheduleAnnotation, schedule)))
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]int{
		"2026-01-06T06:59:59Z": 0, // a Tuesday: 7:59:59 in Berlin
		"2026-01-06T07:00:00Z": 10,
		"2026-01-05T16:59:59Z": 10,
		"2026-01-05T17:00:00Z": 0,
		"2026-07-06T06:00:00Z": 10, // in summer
		"2026-07-06T16:00:00Z": 0,
		"2026-01-06T09:30:00Z": 30, // the larger of two
		"2026-01-07T23:59:59Z": 1,
		"2026-01-08T00:00:00Z": 0,
		"2026-01-10T02:59:00Z": 0, // Friday, 21:59 in New York
		"2026-01-10T03:00:00Z": 5,
		"2026-01-12T06:59:00Z": 5, // Monday, 1:59: it began on Sunday
		"2026-01-12T07:00:00Z": 10,
		"2026-01-13T06:00:00Z": 0, // Tuesday, 1:00: Monday has no night
	} {
		moment, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := floors.At(moment); got != want {
			t.Errorf("%s: got %d, want %d", at, got, want)
		}
	}
	long := kubetest.Template("t", kubetest.WithTemplateAnnotation(instance.PoolScheduleAnnotation, strings.Repeat("Mon 08:00-18:00 UTC 1;", 51)))
	if floors, err := podtemplate.PoolFloors(long); err == nil || floors != nil {
		t.Errorf("51 lines: got %v, %v", floors, err)
	}
}

// A schedule that has no effect is reported.
func TestUselessSchedule(t *testing.T) {
	for _, test := range []struct{ size, schedule, says string }{
		{"2..20", "Mon 08:00-18:00 UTC 20", ""}, {"2..20", "Mon 08:00-18:00 UTC 1; Tue 08:00-18:00 UTC 21", "21 is more than the 20 that binder-project.org/pool-size allows"},
		{"5", "Mon 08:00-18:00 UTC 5", "it has no effect"}, {"", "Mon 08:00-18:00 UTC 5", "it has no effect"}, {"2..20", "", ""},
	} {
		template := kubetest.Template("t")
		for key, value := range map[string]string{instance.PoolSizeAnnotation: test.size, instance.PoolScheduleAnnotation: test.schedule} {
			if value != "" {
				template.Annotations[key] = value
			}
		}
		problems := podtemplate.Problems(template)
		if (len(problems) > 0) != (test.says != "") || len(problems) > 0 && (!strings.Contains(problems[0].Err.Error(), test.says) || problems[0].PreventsLaunch) {
			t.Errorf("%q, %q: got %+v", test.size, test.schedule, problems)
		}
	}
}
