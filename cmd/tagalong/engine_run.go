package main

import (
	"context"

	"tagalong.org/tagalong/app/api"
)

// runEngine runs the engine until ctx ends. It is a variable so that tests can run another.
var runEngine = func(context.Context, engineOptions) error {
	return &api.Error{Code: api.CodeInternal, Sentence: "This build has no engine.", Next: "Use a complete build of Tagalong."}
}
