package main

import (
	"fmt"
	"reflect"
)

// Checks of a program. If one fails, a panic ends the program and prints the place.

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
