package pages

import (
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// unexplained is said of a failed instance that has no message.
const unexplained = "This instance did not start, or it broke down."

// messages are the texts that the messages of instances and of errors are made of, with parts in
// braces. Each is from where the messages are made.
func messages() []string {
	all := slices.Concat(instance.Texts(), protocol.Texts(), []string{launch.StoppedMessage, unexplained})
	slices.Sort(all)
	return slices.Compact(all)
}

// messageText finds a text, and what is in its parts, at the beginning of a message.
type messageText struct {
	english    string
	begin, end string // what is before its first part, and after its last one
	pattern    *regexp.Regexp
}

// messageTexts are those of messages, the longest first: a text can begin with another one.
var messageTexts = sync.OnceValue(func() []messageText {
	var all []messageText
	for _, text := range messages() {
		literals := parts.Split(text, -1)
		next := "$"
		if strings.HasSuffix(text, ".") || strings.HasSuffix(text, ":") { // others can follow
			next = "(?: |$)"
		}
		pattern := regexp.MustCompile("^" + patternOf(text, "(") + next)
		all = append(all, messageText{text, literals[0], literals[len(literals)-1], pattern})
	}
	slices.SortStableFunc(all, func(a, b messageText) int { return len(b.english) - len(a.english) })
	return all
})

// parts matches the parts of a text.
var parts = regexp.MustCompile(`\{[a-z]+\}`)

// The parts of texts that are not the words of a template or a cluster.
const (
	partHow     = "{how}"     // one of instance.EndTexts
	partTime    = "{time}"    // a time.Duration, as are the next two
	partAge     = "{age}"     // a max age
	partTimeout = "{timeout}" // a cull timeout
)

// patternOf returns a regular expression of a text, whose parts are in groups that open so.
func patternOf(text, group string) string {
	var pattern strings.Builder
	last := 0
	for _, at := range parts.FindAllStringIndex(text, -1) {
		pattern.WriteString(regexp.QuoteMeta(text[last:at[0]]) + group + patternOfPart(text[at[0]:at[1]]) + ")")
		last = at[1]
	}
	return pattern.String() + regexp.QuoteMeta(text[last:])
}

// patternOfPart returns a regular expression of what can stand for a part.
func patternOfPart(part string) string {
	switch part {
	case partHow:
		var ends []string
		for _, text := range instance.EndTexts() {
			ends = append(ends, patternOf(text, "(?:"))
		}
		return strings.Join(ends, "|")
	case "{code}", "{times}", "{ahead}", "{max}":
		return "-?[0-9]+"
	case partTime, partAge, partTimeout:
		return "[0-9hms.µn]+"
	}
	return "(?s:.+?)"
}

// piece is a text of which a message is made, in a language or in English.
type piece struct {
	text    string
	english bool // it has no translation
}

// pieces translates the texts of a message one by one. What is no text of messages stays as it is,
// and so does the last output of a container.
func (l *language) pieces(message string) (all []piece) {
	rest, output := instance.CutLastOutput(message)
	unknown := ""
	add := func() {
		if text := strings.TrimSuffix(unknown, " "); text != "" {
			all = append(all, piece{text, l.texts != nil})
		}
		unknown = ""
	}
	for rest != "" {
		found, length := l.firstText(rest)
		if length == 0 {
			length = len(rest)
			if end := strings.Index(rest, ". "); end >= 0 {
				length = end + len(". ")
			}
			unknown += rest[:length]
		} else {
			add()
			all = append(all, found)
		}
		rest = rest[length:]
	}
	add()
	if output != "" {
		said := l.fill(instance.LastOutputFollows, nil)
		all = append(all, piece{said.text + "\n" + output, said.english})
	}
	return all
}

// firstText translates the text that a message begins with. length is how long it is in the
// message; 0 if it is not known.
func (l *language) firstText(message string) (found piece, length int) {
	for _, text := range messageTexts() {
		if !strings.HasPrefix(message, text.begin) || !strings.Contains(message, text.end) { // an expression takes longer
			continue
		}
		if values := text.pattern.FindStringSubmatch(message); values != nil {
			return l.fill(text.english, values[1:]), len(values[0])
		}
	}
	return piece{}, 0
}

// fill translates a text, and puts the values in place of its parts.
func (l *language) fill(english string, values []string) piece {
	var pairs []string
	for i, part := range parts.FindAllString(english, len(values)) {
		pairs = append(pairs, part, l.part(part, values[i]))
	}
	return piece{instance.Fill(l.translate(english), pairs...), l.texts != nil && l.texts[english] == ""}
}

// part returns the value of a part in the language. Durations are written as people write them.
func (l *language) part(part, value string) string {
	switch part {
	case partHow:
		text, _ := l.message(value)
		return text
	case partTime, partAge, partTimeout:
		if d, err := time.ParseDuration(value); err == nil {
			return l.text(exactly(d))
		}
	}
	return value
}

// message translates a message. known is false if all of it stays in English.
func (l *language) message(message string) (text string, known bool) {
	var texts []string
	all := l.pieces(message)
	for _, p := range all {
		texts = append(texts, p.text)
		known = known || !p.english
	}
	return strings.Join(texts, " "), known || len(all) == 0
}

// exactly returns a duration as people write it, in its two largest units.
func exactly(d time.Duration) phrase {
	unit, small := time.Minute, time.Second
	if d >= time.Hour {
		unit, small = time.Hour, time.Minute
	}
	d = d.Round(small)
	if rest := d % unit; d > unit && rest != 0 {
		return say("%s and %s", inWords(d-rest), inWords(rest))
	}
	return inWords(d)
}
