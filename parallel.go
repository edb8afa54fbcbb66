package main

import "sync"

// forEach calls do for every item, at most limit at a time, and returns when
// all have returned.
func forEach[T any](items []T, limit int, do func(T)) {
	var running sync.WaitGroup
	slots := make(chan struct{}, limit)
	for _, item := range items {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			do(item)
		})
	}
	running.Wait()
}
