package podtemplate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // the service's image has no time zones

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (
	// maxPoolSize bounds a pool: a typing error must not fill the cluster.
	maxPoolSize = 1000
	// maxFloors bounds a schedule.
	maxFloors = 50
)

// PoolBounds are how many pods of a template are kept warm: from Least to Most, as launches
// ask for them. Both are the same if the size is fixed, and 0 if there is no pool.
type PoolBounds struct{ Least, Most int }

// IsFixed reports whether the size does not depend on launches.
func (b PoolBounds) IsFixed() bool { return b.Least == b.Most }

// Within returns the allowed size that is nearest to a wanted one.
func (b PoolBounds) Within(wanted int) int { return max(b.Least, min(wanted, b.Most)) }

// PoolSize returns how many pods of a template are kept warm.
func PoolSize(template *corev1.PodTemplate) (PoolBounds, error) {
	return parseAnnotation(template, instance.PoolSizeAnnotation, parsePoolSize)
}

// parsePoolSize reads "5" or "2..20".
func parsePoolSize(value string) (PoolBounds, error) {
	first, last, isRange := strings.Cut(value, "..")
	if !isRange {
		last = first
	}
	least, err := parseSize(first)
	most, errLast := parseSize(last)
	if err != nil || errLast != nil || least > most {
		return PoolBounds{}, invalid(value, fmt.Sprintf("a whole number from 0 to %d, or a range of them such as 2..20", maxPoolSize))
	}
	return PoolBounds{least, most}, nil
}

func parseSize(text string) (int, error) {
	size, err := strconv.Atoi(text)
	if err != nil || size < 0 || size > maxPoolSize {
		return 0, fmt.Errorf("%q is no size of a pool", text)
	}
	return size, nil
}

// PoolSchedule says how large a pool is at least, by the time of the day.
type PoolSchedule []poolFloor

// poolFloor is the least size of a pool on some days from one time of the day to another.
type poolFloor struct {
	days     [7]bool // by time.Weekday
	from, to int     // in minutes after midnight; from the one, and up to the other, on the next day if that is not later
	zone     *time.Location
	size     int
}

// PoolFloors returns the schedule of a template's pool.
func PoolFloors(template *corev1.PodTemplate) (PoolSchedule, error) {
	return parseAnnotation(template, instance.PoolScheduleAnnotation, parsePoolSchedule)
}

// uselessSchedule returns what is wrong with a valid schedule that has no effect.
func uselessSchedule(template *corev1.PodTemplate) error {
	schedule, wrong := PoolFloors(template)
	bounds, err := PoolSize(template)
	if wrong != nil || err != nil || len(schedule) == 0 {
		return nil
	}
	most := slices.MaxFunc(schedule, func(a, b poolFloor) int { return a.size - b.size }).size
	switch {
	case bounds.IsFixed():
		return named(instance.PoolScheduleAnnotation, fmt.Errorf("it has no effect, because %s is no range such as 2..20", instance.PoolSizeAnnotation))
	case most > bounds.Most:
		return named(instance.PoolScheduleAnnotation, fmt.Errorf("%d is more than the %d that %s allows", most, bounds.Most, instance.PoolSizeAnnotation))
	}
	return nil
}

// At returns how large the pool is at least at a time; 0 if the schedule does not say.
func (s PoolSchedule) At(now time.Time) int {
	least := 0
	for _, floor := range s {
		if floor.holds(now.In(floor.zone)) {
			least = max(least, floor.size)
		}
	}
	return least
}

// holds reports whether a local time is in the hours of the floor. Hours that pass midnight
// belong to the day on which they begin.
func (f poolFloor) holds(local time.Time) bool {
	minute, today := local.Hour()*60+local.Minute(), local.Weekday()
	if f.from < f.to {
		return f.days[today] && minute >= f.from && minute < f.to
	}
	yesterday := (today + 6) % 7
	return f.days[today] && minute >= f.from || f.days[yesterday] && minute < f.to
}

// parsePoolSchedule reads lines, or parts between semicolons, such as
// "Mon-Fri 08:00-18:00 Europe/Berlin 10": days, hours, a zone of the IANA database, a size.
func parsePoolSchedule(value string) (PoolSchedule, error) {
	const allowed = "lines of days, hours, a time zone and a number of pods, such as Mon-Fri 08:00-18:00 Europe/Berlin 10"
	var schedule PoolSchedule
	for line := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == '\n' || r == ';' }) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		floor, err := parseFloor(fields)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", invalid(value, allowed), err)
		}
		schedule = append(schedule, floor)
	}
	if len(schedule) == 0 || len(schedule) > maxFloors {
		return nil, invalid(value, fmt.Sprintf("1 to %d %s", maxFloors, allowed))
	}
	return schedule, nil
}

func parseFloor(fields []string) (floor poolFloor, err error) {
	if len(fields) != 4 {
		return floor, fmt.Errorf("%q has %d words and not 4", strings.Join(fields, " "), len(fields))
	}
	if floor.days, err = parseDays(fields[0]); err != nil {
		return floor, err
	}
	from, to, _ := strings.Cut(fields[1], "-")
	if floor.from, err = parseMinute(from); err != nil {
		return floor, err
	}
	if floor.to, err = parseMinute(to); err != nil {
		return floor, err
	}
	// Local is whatever the replica's machine has, and the empty name is UTC.
	if floor.zone, err = time.LoadLocation(fields[2]); err != nil || fields[2] == "Local" {
		return floor, fmt.Errorf("%q is no time zone such as Europe/Berlin or UTC", fields[2])
	}
	floor.size, err = parseSize(fields[3])
	return floor, err
}

// parseDays reads days and ranges of days between commas, such as Mon-Fri,Sun.
func parseDays(text string) (days [7]bool, err error) {
	names := []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, to := slices.Index(names, first), slices.Index(names, last)
		if from < 0 || to < 0 {
			return days, fmt.Errorf("%q is no day from Mon to Sun, nor a range such as Mon-Fri", part)
		}
		for day := from; ; day = (day + 1) % 7 {
			days[day] = true
			if day == to {
				break
			}
		}
	}
	return days, nil
}

// parseMinute reads hh:mm, from 00:00 to 24:00, as minutes after midnight.
func parseMinute(text string) (int, error) {
	if text == "24:00" {
		return 24 * 60, nil
	}
	at, err := time.Parse("15:04", text)
	if err != nil || len(text) != len("15:04") {
		return 0, fmt.Errorf("%q is no time of the day from 00:00 to 24:00, such as 08:30", text)
	}
	return at.Hour()*60 + at.Minute(), nil
}
