package proxy

import (
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

const proxyDoc = "../../docs/proxy.md"

// tableRows returns the rows of the tables in docs/proxy.md that have a number of
// columns, without their heads. Code marks are removed from all cells but the first.
func tableRows(t testing.TB, columns int) [][]string {
	t.Helper()
	doc, err := os.ReadFile(proxyDoc)
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for line := range strings.Lines(string(doc)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) != columns {
			continue
		}
		for i := range cells {
			cells[i] = strings.Trim(strings.TrimSpace(cells[i]), "`")
		}
		rows = append(rows, cells)
	}
	return rows
}

// Every row of the table of changes is what happens.
func TestDocumentedChanges(t *testing.T) {
	rows := tableRows(t, 6)
	if len(rows) < 30 {
		t.Fatalf("found %d rows in %s", len(rows), proxyDoc)
	}
	for _, row := range rows[1:] {
		to, when, field, sent, arrives := row[0], row[1], row[2], row[3], row[4]
		t.Run(strings.Join(row[:4], " "), func(t *testing.T) {
			var answer, seen http.Header
			inst := application(t, func(w http.ResponseWriter, r *http.Request) {
				seen = r.Header.Clone()
				seen.Set("Host", r.Host)
				for name, values := range answer {
					w.Header()[name] = values
				}
				w.Header()["Date"], w.Header()["Content-Type"] = answer["Date"], nil
			}, func(inst *instance.Instance) {
				inst.StripPrefix = when == "strip-prefix"
				name, value, _ := strings.Cut(strings.TrimPrefix(when, "token-header: "), ": ")
				if strings.HasPrefix(when, "token-header: ") {
					inst.Token = instance.Token{Name: name, Value: strings.Replace(value, "$(BINDER_TOKEN)", kubetest.Token, 1)}
				}
			})
			_, port, _ := net.SplitHostPort(inst.Address)
			fill := strings.NewReplacer("<id>", kubetest.ID(1), "<api-key>", testAPIKey, "<token>", kubetest.Token, "<port>", port).Replace
			p, header := startProxy(t, inst), []string(nil)
			if when == "own host" {
				p.handler.deps.Layout = layout()
				header = append(header, "Host: "+kubetest.ID(1)+".users.example:8443")
			}
			c := p.dial(t)
			switch {
			case sent == "–":
			case to == "client":
				answer = http.Header{field: {fill(sent)}}
			case field != "Host": // which every request has
				header = append(header, field+": "+fill(sent))
			}
			c.request(t, "GET", base, header...)
			res, _ := c.answer(t)
			if to == "client" {
				seen = res.Header
			}
			got, want := seen.Values(field), fill(arrives)
			switch {
			case want == "–" && len(got) > 0, want == "*" && len(got) == 0, want != "–" && want != "*" && (len(got) != 1 || got[0] != want):
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// Every promise names the tests that show it.
func TestDocumentedPromises(t *testing.T) {
	tests := ""
	for _, dir := range []string{".", "../upstream"} {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file.Name(), "_test.go") {
				text, err := os.ReadFile(dir + "/" + file.Name())
				if err != nil {
					t.Fatal(err)
				}
				tests += string(text)
			}
		}
	}
	rows := tableRows(t, 3)
	if len(rows) < 15 {
		t.Fatalf("found %d rows in %s", len(rows), proxyDoc)
	}
	for _, row := range rows {
		if row[2] == "tests" {
			continue
		}
		names := regexp.MustCompile(`Test\w+`).FindAllString(row[2], -1)
		if len(names) == 0 {
			t.Errorf("no test is named for: %s", row[0])
		}
		for _, name := range names {
			if !strings.Contains(tests, "func "+name+"(") {
				t.Errorf("there is no %s", name)
			}
		}
	}
}
