package document

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// ReadJSON reads valid JSON that people or programs wrote, as encoding/json would, but for
// numbers, see ParseNumber, and for keys that are given twice, which it refuses.
func ReadJSON(text []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	return readJSON(decoder)
}

// readJSON reads the next value.
func readJSON(decoder *json.Decoder) (any, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	switch token := token.(type) {
	case json.Number:
		if number, ok := ParseNumber(token.String()); ok {
			return number, nil
		}
		return token.String(), nil
	case json.Delim:
		if token == '[' {
			list := []any{}
			for decoder.More() {
				element, err := readJSON(decoder)
				if err != nil {
					return nil, err
				}
				list = append(list, element)
			}
			_, err := decoder.Token()
			return list, err
		}
		mapping := map[string]any{}
		for decoder.More() {
			key, err := decoder.Token()
			if err != nil {
				return nil, err
			}
			if _, twice := mapping[key.(string)]; twice {
				return nil, fmt.Errorf("the key %q is there twice", key)
			}
			if mapping[key.(string)], err = readJSON(decoder); err != nil {
				return nil, err
			}
		}
		_, err := decoder.Token()
		return mapping, err
	}
	return token, nil
}
