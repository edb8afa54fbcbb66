// Package commands reads the commands in the documentation, for tests that run them. A block
// of commands has a mark behind the language of its fence, which readers do not see:
//
//	```sh test=TestInstall      TestInstall runs it
//	```sh needs=kind            nothing here can run it, because there is no kind
//
// A block of make's targets needs no mark: that the Makefile has them is checked.
package commands

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Block is a block of shell commands on a page.
type Block struct {
	Page    string // the path from the root of the repository
	Line    int    // the number of its first line of commands
	Heading string // the heading above it, without hashes
	Text    string // the commands, without indentation, prompts and what they print
	Test    string // the test that runs it
	Needs   string // what it needs and the tests do not have

	language string
}

// needs are the marks of blocks that no test runs, and what they stand for.
func needs() map[string]string {
	return map[string]string{
		"build":          "a developer's machine and minutes: make test does the same in its own way",
		"custom-metrics": "a custom metrics API, such as prometheus-adapter",
		"kind":           "kind and a container engine",
		"k3s":            "k3s and a container engine",
		"machine":        "a machine that may be changed: it starts and stops the cluster of the tests",
		"npm":            "npm's packages",
		"openshift":      "OpenShift",
		"registry":       "an image registry to push to",
	}
}

// Read returns all blocks of shell commands in the Markdown files below the root of the
// repository. It refuses fences without a language, and marks that it does not know.
func Read(root string) ([]*Block, error) {
	var blocks []*Block
	err := walkPages(root, func(page string, text string) error {
		found, err := parse(page, text)
		blocks = append(blocks, found...)
		return err
	})
	return blocks, err
}

// walkPages calls do with the path and the text of each Markdown file.
func walkPages(root string, do func(page, text string) error) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules"):
			return fs.SkipDir // build output, and other people's pages
		case entry.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		page, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return do(filepath.ToSlash(page), string(data))
	})
}

// parse returns the blocks of one page.
func parse(page, text string) (blocks []*Block, err error) {
	fence := regexp.MustCompile("^( *)```(.*)$")
	var heading, indent string
	var block *Block // that is open
	for i, line := range strings.Split(text, "\n") {
		mark := fence.FindStringSubmatch(line)
		switch {
		case block == nil && mark != nil:
			indent = mark[1]
			if block, err = open(mark[2]); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", page, i+1, err)
			}
			block.Page, block.Line, block.Heading = page, i+2, heading
		case block == nil:
			if title := strings.TrimLeft(line, "#"); title != line && strings.HasPrefix(title, " ") {
				heading = strings.TrimSpace(title)
			}
		case mark != nil && mark[2] == "":
			if block.isShell() {
				blocks = append(blocks, block)
			}
			block = nil
		default:
			block.add(strings.TrimPrefix(line, indent))
		}
	}
	if block != nil {
		return nil, fmt.Errorf("%s:%d: the block has no end", page, block.Line)
	}
	return blocks, nil
}

// open returns an empty block for what is behind a fence's backquotes.
func open(info string) (*Block, error) {
	language, marks, _ := strings.Cut(info, " ")
	block := &Block{language: language}
	switch language {
	case "sh", "console", "json", "markdown", "python", "text", "yaml":
	default:
		return nil, fmt.Errorf("unknown language %q: commands are sh or console, and what has none is text", language)
	}
	for _, mark := range strings.Fields(marks) {
		switch key, value, _ := strings.Cut(mark, "="); {
		case key == "test" && block.isShell():
			block.Test = value
		case key == "needs" && block.isShell():
			block.Needs = value
		default:
			return nil, fmt.Errorf("unknown mark %q", mark)
		}
	}
	return block, nil
}

func (b *Block) isShell() bool { return b.language == "sh" || b.language == "console" }

// add adds a line. On a console, only what follows a prompt is a command.
func (b *Block) add(line string) {
	if b.language == "console" {
		command, prompted := strings.CutPrefix(line, "$ ")
		if !prompted {
			return
		}
		line = command
	}
	b.Text += line + "\n"
}

// Commands returns the commands of a block that has one in a line. A backslash continues a
// line. Comments are left out.
func (b *Block) Commands() (commands []string) {
	for line := range strings.Lines(strings.ReplaceAll(b.Text, "\\\n", "")) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			commands = append(commands, line)
		}
	}
	return commands
}

// String says where the block is.
func (b *Block) String() string { return fmt.Sprintf("%s:%d", b.Page, b.Line) }

// Sentences returns the commands in the sentences of all pages that an expression matches, each
// once.
func Sentences(root, expression string) ([]string, error) {
	span := regexp.MustCompile("`(" + expression + "[^`\n]*)`")
	found := map[string]bool{}
	err := walkPages(root, func(_, text string) error {
		for _, match := range span.FindAllStringSubmatch(text, -1) {
			found[match[1]] = true
		}
		return nil
	})
	return slices.Sorted(maps.Keys(found)), err
}
