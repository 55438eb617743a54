package readme

import (
	"strings"
	"testing"
)

// TestRecipes runs the commands of docs/recipes.md.
func TestRecipes(t *testing.T) {
	same := func(string) *strings.Replacer { return strings.NewReplacer() }
	page{file: "recipes.md", serve: "pylokd --root", to: same, from: same}.run(t)
}
