package pages

import (
	"cmp"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// phrase is a text of our own pages, in English, as a format of package fmt with its arguments:
// texts that are the same in all languages, and phrases. An English text of ours is also the key
// by which its translations are found.
type phrase struct {
	english string
	args    []any
}

func say(english string, args ...any) phrase { return phrase{english, args} }

// quote is a phrase that is the message of an instance or of an error. Those of its sentences are
// translated that this service says; see messages.
func quote(text string) phrase { return say(quoted, text) }

// quoted is the format of quote.
const quoted = "%s"

// called is a template's name as an argument of a phrase. Pages say the template's title in its
// place, if it has one.
type called string

// String returns the phrase in English.
func (p phrase) String() string { return english.text(p) }

// language is a language of our pages.
type language struct {
	tag   string            // as in RFC 5646
	texts map[string]string // by the English text; nil for English
	// titleOf returns the title of a template of a name; "" for one that has none. It can be nil.
	titleOf func(template string) string
}

// english is the language in which everything is said.
var english = &language{tag: "en"}

// language reads a language: the translations are a JSON object. Those of an operator's file come
// first, and may be only some.
func (f files) language(tag string) (*language, error) {
	l := &language{tag: tag, texts: map[string]string{}, titleOf: f.titleOf}
	name := "language." + tag + ".json"
	for _, all := range []map[string]string{f.own, f.other} {
		if text, exists := all[name]; exists {
			if err := l.add(text); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return l, nil
}

// add adds the translations of a file.
func (l *language) add(text string) error {
	var texts map[string]string
	if err := json.Unmarshal([]byte(text), &texts); err != nil {
		return err
	}
	for english, text := range texts {
		if !slices.Equal(verbs.FindAllString(text, -1), verbs.FindAllString(english, -1)) {
			return fmt.Errorf("%q must have the same %%s and %%d, in the same order, as %q", text, english)
		}
		if want := partsOf(english); !slices.Equal(partsOf(text), want) {
			return fmt.Errorf("%q must have the same parts, in any order, as %q: %s", text, english, strings.Join(want, ", "))
		}
	}
	maps.Copy(l.texts, texts)
	return nil
}

// partsOf returns the parts of a text, such as {image}, in the order of their names.
func partsOf(text string) []string {
	found := parts.FindAllString(text, -1)
	slices.Sort(found)
	return found
}

// verbs matches what stands for an argument in a format.
var verbs = regexp.MustCompile(`%.?`)

// text returns a phrase, or an English text of ours, in the language. Numbers and other texts stay
// as they are.
func (l *language) text(said any) string {
	switch said := said.(type) {
	case phrase:
		if said.english == quoted {
			text, _ := l.message(fmt.Sprint(said.args...))
			return text
		}
		args := make([]any, len(said.args))
		for i, arg := range said.args {
			switch args[i] = arg; arg.(type) {
			case phrase, called:
				args[i] = l.text(arg)
			}
		}
		return fmt.Sprintf(l.translate(said.english), args...)
	case called:
		return cmp.Or(l.title(said), string(said))
	case string:
		return l.translate(said)
	}
	return fmt.Sprint(said)
}

func (l *language) title(template called) string {
	if l.titleOf == nil {
		return ""
	}
	return l.titleOf(string(template))
}

func (l *language) translate(english string) string { return cmp.Or(l.texts[english], english) }

// html returns a text as HTML. What stays in English of a message is marked as such, for those to
// whom it is read out.
func (l *language) html(said any) template.HTML {
	p, is := said.(phrase)
	if !is || p.english != quoted {
		return template.HTML(template.HTMLEscapeString(l.text(said)))
	}
	var all []string
	for _, piece := range l.pieces(fmt.Sprint(p.args...)) {
		escaped := template.HTMLEscapeString(piece.text)
		if piece.english {
			escaped = `<span lang="en">` + escaped + "</span>"
		}
		all = append(all, escaped)
	}
	return template.HTML(strings.Join(all, " "))
}

// markup returns an English text of ours in the language, with arguments that are HTML, or are
// escaped.
func (l *language) markup(english string, args ...any) template.HTML {
	for i, arg := range args {
		if _, is := arg.(template.HTML); !is {
			args[i] = l.html(arg)
		}
	}
	return template.HTML(fmt.Sprintf(template.HTMLEscapeString(l.translate(english)), args...))
}

// functions are what templates say things with.
func (l *language) functions() template.FuncMap {
	return template.FuncMap{
		"lang": func() string { return l.tag },
		"t":    l.html,
		"text": l.text, // where there is no markup
		"th":   l.markup,
		"name": asName,
		"called": func(name string) template.HTML {
			if title := l.title(called(name)); title != "" {
				return asIs(title)
			}
			return asName(name)
		},
		"asIs":   asIs,
		"quote":  quote,
		"moment": l.moment,
		"texts": func(english ...string) map[string]string { // for scripts
			all := map[string]string{}
			for _, text := range english {
				all[text] = l.translate(text)
			}
			return all
		},
		"sources": func(all map[instance.Source]phrase) map[instance.Source]string {
			words := map[instance.Source]string{}
			for source, said := range all {
				words[source] = l.text(said)
			}
			return words
		},
	}
}

// asName returns a name that machines use, as pages show it.
func asName(name string) template.HTML { return `<span class="name">` + asIs(name) + "</span>" }

// asIs returns a text that is the same in all languages.
func asIs(text string) template.HTML { return template.HTML(template.HTMLEscapeString(text)) }

// moment is a time that scripts write in the visitor's own way. id is its element's, or "".
func (l *language) moment(id string, at time.Time) template.HTML {
	layout := "2006-01-02 15:04 UTC"
	if l.tag == english.tag {
		layout = "2 January 2006, 15:04 UTC"
	}
	if id != "" {
		id = ` id="` + template.HTMLEscapeString(id) + `"`
	}
	at = at.UTC()
	return template.HTML(fmt.Sprintf(`<time%s datetime="%s">%s</time>`, id, at.Format("2006-01-02T15:04:05Z"), at.Format(layout)))
}

// language returns the language that a browser prefers of ours, or English.
func (s *Site) language(r *http.Request) *language {
	index := func(tag string) int {
		return slices.IndexFunc(s.languages, func(l *language) bool { return l.tag == tag })
	}
	tag := protocol.PreferredLanguage(r.Header.Values("Accept-Language"), func(tag string) bool { return index(tag) >= 0 })
	return s.languages[max(index(tag), 0)]
}
