package main

import (
	"fmt"
	"reflect"
)

// What a program expects; a panic ends it, with the place where it happened.

func that(holds bool, what string) {
	if !holds {
		panic(what)
	}
}

func equal(expected, found any) {
	if !reflect.DeepEqual(expected, found) {
		panic(fmt.Sprintf("expected %#v, found %#v", expected, found))
	}
}

func check(problem error) {
	if problem != nil {
		panic(problem)
	}
}

func must[T any](value T, problem error) T {
	check(problem)
	return value
}
