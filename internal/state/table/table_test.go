package table_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/memstate"
	"github.com/sluice-platform/sluice/internal/state/table"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

type pet struct {
	Name string   `json:"name"`
	Age  int      `json:"age"`
	Toys []string `json:"toys,omitempty"`
}

func commit(t *testing.T, s state.Store, changes ...table.Change) int64 {
	t.Helper()
	rev, err := table.Commit(t.Context(), s, changes...)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func get[T any](t *testing.T, tab *table.Table[T], id string) table.Versioned[T] {
	t.Helper()
	v, err := tab.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestChangesHoldTheirConditions(t *testing.T) {
	s := memstate.New(memstate.Config{})
	pets := table.New[pet](s, "pets")
	rev := commit(t, s, pets.Create("rex", pet{Name: "Rex"}))
	rex := get(t, pets, "rex")
	if rex.Key != "pets/rex" || rex.ID != "rex" || rex.ModRevision != rev || rex.Value.Name != "Rex" {
		t.Fatalf("read back %+v", rex)
	}
	commit(t, s, pets.Update(rex, pet{Name: "Rex", Age: 1}))
	newer := get(t, pets, "rex")
	for name, change := range map[string]table.Change{
		"create again":    pets.Create("rex", pet{}),
		"stale update":    pets.Update(rex, pet{}),
		"stale delete":    pets.Delete(rex),
		"stale expect":    pets.Expect(rex),
		"expected absent": pets.ExpectAbsent("rex"),
		"foreign fence":   table.Require(state.Cond{Key: "leader", ModRevision: 7}),
	} {
		_, err := table.Commit(t.Context(), s, change, pets.Put("trace", pet{}))
		if !errs.Is(err, errs.Conflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := pets.Get(t.Context(), "trace"); !errs.Is(err, errs.NotFound) {
		t.Errorf("a refused batch left a trace: %v", err)
	}
	commit(t, s, pets.Expect(newer), pets.ExpectAbsent("tom"), pets.Delete(newer), pets.Put("tom", pet{Name: "Tom"}))
	all, _, err := pets.List(t.Context())
	if err != nil || len(all) != 1 || all[0].ID != "tom" {
		t.Fatalf("left %+v, %v", all, err)
	}
}

func TestBatchRefusesWhatCannotHold(t *testing.T) {
	s := memstate.New(memstate.Config{})
	pets, numbers := table.New[pet](s, "pets/"), table.New[float64](s, "numbers/")
	old := table.Versioned[pet]{ID: "rex", ModRevision: 3}
	for name, c := range map[string]struct {
		changes []table.Change
		kind    errs.Kind
	}{
		"two revisions":  {[]table.Change{pets.Expect(old), pets.ExpectAbsent("rex")}, errs.Conflict},
		"written twice":  {[]table.Change{pets.Put("rex", pet{}), pets.Put("rex", pet{})}, errs.Invalid},
		"not encodable":  {[]table.Change{numbers.Put("nan", math.NaN())}, errs.Invalid},
		"no id":          {[]table.Change{pets.Put("", pet{})}, errs.Invalid},
		"delete of none": {[]table.Change{pets.Delete(table.Versioned[pet]{})}, errs.Invalid},
	} {
		if _, err := new(table.Batch).Add(c.changes...).Txn(); !errs.Is(err, c.kind) {
			t.Errorf("%s: %v, want kind %s", name, err, c.kind)
		}
	}
	txn, err := new(table.Batch).Add(pets.Expect(old), pets.Update(old, pet{})).Txn()
	if err != nil || len(txn.If) != 1 || len(txn.Then) != 1 {
		t.Errorf("the same condition twice: %+v, %v", txn, err)
	}
}

func TestLeasedRecordVanishes(t *testing.T) {
	s := memstate.New(memstate.Config{})
	pets := table.New[pet](s, "pets")
	id, err := s.Grant(t.Context(), 1e9)
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, pets.Create("rex", pet{}).WithLease(id), pets.Create("tom", pet{}))
	if err := s.Revoke(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if all, _, err := pets.List(t.Context()); err != nil || len(all) != 1 || all[0].ID != "tom" {
		t.Fatalf("left %+v, %v", all, err)
	}
}

func TestDecodingIsStrictAndNamesTheKey(t *testing.T) {
	s := memstate.New(memstate.Config{})
	pets := table.New[pet](s, "pets")
	commit(t, s, pets.Put("good", pet{Name: "Rex"}))
	for id, raw := range map[string]string{
		"unknown": `{"name":"x","wings":2}`, "more": `{"name":"x"}{}`, "cut": `{"name":`, "empty": ``, "other": `[1]`,
	} {
		if _, err := s.Commit(t.Context(), state.Txn{Then: []state.Op{{Key: "pets/" + id, Value: []byte(raw)}}}); err != nil {
			t.Fatal(err)
		}
		_, err := pets.Get(t.Context(), id)
		if !errs.Is(err, errs.Corrupt) || !strings.Contains(err.Error(), "pets/"+id) {
			t.Errorf("%s: %v", id, err)
		}
	}
	all, rev, err := pets.List(t.Context())
	if !errs.Is(err, errs.Corrupt) || !strings.Contains(err.Error(), "pets/cut") || rev == 0 {
		t.Errorf("list over corrupt records: revision %d, %v", rev, err)
	}
	if len(all) != 1 || all[0].ID != "good" {
		t.Errorf("the good record is lost among the bad: %+v", all)
	}
}

func TestModifyLosesNoUpdate(t *testing.T) {
	const writers, each = 4, 25
	s := memstate.New(memstate.Config{})
	pets := table.New[pet](s, "pets")
	commit(t, s, pets.Create("rex", pet{}))
	var group errgroup.Group
	for range writers {
		group.Go(func() error {
			for range each {
				for {
					_, err := pets.Modify(t.Context(), "rex", func(p pet) (pet, error) { p.Age++; return p, nil })
					if err == nil {
						break
					}
					if !errs.Is(err, errs.Conflict) {
						return err
					}
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if rex := get(t, pets, "rex"); rex.Value.Age != writers*each {
		t.Fatalf("age %d after %d birthdays", rex.Value.Age, writers*each)
	}
}

func TestModifyIsBoundedAndHonest(t *testing.T) {
	var meddle func()
	s := memstate.New(memstate.Config{})
	pets := table.New[pet](s, "pets")
	rev := commit(t, s, pets.Create("rex", pet{}))

	same, err := pets.Modify(t.Context(), "rex", func(p pet) (pet, error) { return p, nil })
	if err != nil || same.ModRevision != rev || get(t, pets, "rex").ModRevision != rev {
		t.Errorf("an edit of nothing wrote: %+v, %v", same, err)
	}

	calls := 0
	no := errs.New(errs.Conflict, "no")
	_, err = pets.Modify(t.Context(), "rex", func(p pet) (pet, error) { calls++; return p, no })
	if !errors.Is(err, no) || calls != 1 {
		t.Errorf("edit's own conflict, after %d calls: %v", calls, err)
	}
	if _, err = pets.Modify(t.Context(), "tom", func(p pet) (pet, error) { return p, nil }); !errs.Is(err, errs.NotFound) {
		t.Errorf("modify of nothing: %v", err)
	}

	calls = 0
	meddle = func() { commit(t, s, pets.Put("rex", pet{Name: fmt.Sprint("other ", calls)})) }
	_, err = pets.Modify(t.Context(), "rex", func(p pet) (pet, error) {
		calls++
		meddle() // somebody is always quicker
		p.Age++
		return p, nil
	})
	if !errs.Is(err, errs.Conflict) || calls < 2 || calls > 50 {
		t.Errorf("after %d attempts: %v", calls, err)
	}
}
