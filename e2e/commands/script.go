package commands

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Script is the blocks that a test says it runs.
type Script struct {
	blocks []*Block
	ran    map[*Block][]string
}

// For returns the blocks whose mark names the test. At its end, the test fails if it has
// left out a command of them.
func For(t testing.TB, root string) *Script {
	t.Helper()
	all, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	s := &Script{ran: map[*Block][]string{}}
	for _, block := range all {
		if block.Test == t.Name() {
			s.blocks = append(s.blocks, block)
		}
	}
	if len(s.blocks) == 0 {
		t.Fatalf("no block of commands has the mark test=%s", t.Name())
	}
	t.Cleanup(func() {
		if t.Failed() || t.Skipped() {
			return
		}
		for _, block := range s.blocks {
			for _, command := range block.Commands() {
				if !slices.Contains(s.ran[block], command) {
					t.Errorf("%s: the test has not run %s", block, command)
				}
			}
		}
	})
	return s
}

// Blocks returns the blocks below a heading of a page, in their order. It fails the test
// without any.
func (s *Script) Blocks(t testing.TB, page, heading string) (blocks []*Block) {
	t.Helper()
	for _, block := range s.blocks {
		if block.Page == page && block.Heading == heading {
			blocks = append(blocks, block)
		}
	}
	if len(blocks) == 0 {
		t.Fatalf("%s has no block of commands below %q with the mark test=%s", page, heading, t.Name())
	}
	return blocks
}

// All returns all blocks.
func (s *Script) All() []*Block { return s.blocks }

// Run runs a whole block, and returns what it prints.
func (s *Script) Run(t testing.TB, shell *Shell, block *Block) string {
	t.Helper()
	s.ran[block] = block.Commands()
	return shell.Run(t, block.String(), block.Text)
}

// RunCommand runs one command of a block, and returns what it prints.
func (s *Script) RunCommand(t testing.TB, shell *Shell, block *Block, command string) string {
	t.Helper()
	s.ran[block] = append(s.ran[block], command)
	return shell.Run(t, block.String(), command)
}

// TryCommand is RunCommand for a command that may fail.
func (s *Script) TryCommand(t testing.TB, shell *Shell, block *Block, command string) error {
	s.ran[block] = append(s.ran[block], command)
	if _, err := shell.Try(t.Context(), command); err != nil {
		return fmt.Errorf("%s: %w", block, err)
	}
	return nil
}

// Watch runs a command that does not end by itself, until it has printed what an expression
// matches, and returns what it has printed.
func (s *Script) Watch(t testing.TB, shell *Shell, block *Block, command, expression string) string {
	t.Helper()
	s.ran[block] = append(s.ran[block], command)
	return shell.watch(t, block.String(), command, expression)
}

// SameAs counts a block as run because its commands are those of another that was run.
func (s *Script) SameAs(t testing.TB, block, other *Block) {
	t.Helper()
	if strings.TrimSpace(block.Text) != strings.TrimSpace(other.Text) {
		t.Errorf("%s and %s differ:\n%s\n%s", block, other, block.Text, other.Text)
	}
	s.ran[block] = slices.Clone(s.ran[other])
}
