package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

// web calls api, which calls db: the answer shows all three.
func TestCallNestsAnswers(t *testing.T) {
	server := func(pod string) string {
		s := httptest.NewServer(handler(Identity{Cluster: "east", Pod: pod}))
		t.Cleanup(s.Close)
		return s.URL
	}
	db := server("db-0") + "/rows"
	api := server("api-0") + "/call?url=" + url.QueryEscape(db)
	web := server("web-0") + "/call?url=" + url.QueryEscape(api)

	response, err := http.Get(web)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	pods := []string{}
	for answer := json.NewDecoder(response.Body); ; {
		var echo Echo
		if err := answer.Decode(&echo); err != nil {
			t.Fatal(err)
		}
		pods = append(pods, echo.Pod)
		if echo.Called == nil {
			if echo.Path != "/rows" {
				t.Errorf("the last path is %q", echo.Path)
			}
			break
		}
		response := httptest.NewRecorder()
		response.Body.Write(echo.Called.Answer)
		answer = json.NewDecoder(response.Body)
	}
	if len(pods) != 3 || pods[0] != "web-0" || pods[1] != "api-0" || pods[2] != "db-0" {
		t.Errorf("answered by %v", pods)
	}
}

func TestAFailedCallIsABadGateway(t *testing.T) {
	recorder := httptest.NewRecorder()
	request := httptest.NewRequest(http.MethodGet, "/call?url="+url.QueryEscape(closedPort(t)), nil)
	handler(Identity{}).ServeHTTP(recorder, request)
	var echo Echo
	if err := json.Unmarshal(recorder.Body.Bytes(), &echo); err != nil {
		t.Fatal(err)
	}
	if recorder.Code != http.StatusBadGateway || echo.Called == nil || echo.Called.Error == "" {
		t.Errorf("%d %s", recorder.Code, recorder.Body)
	}
}
