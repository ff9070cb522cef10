package etcdstate

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// slogCore hands etcd's log to ours, all of it at level debug: an orderly Close alone writes
// several lines at level error, and what etcd gives up for becomes an error, of Start or Wait.
type slogCore struct {
	log    *slog.Logger
	fields []zapcore.Field
}

// newZapLogger returns a logger whose "fatal" is a panic, so that Restore can return it as an
// error: by default it would end the process, even where the line itself is dropped. A running
// member has giveUp for it.
func newZapLogger(log *slog.Logger) *zap.Logger {
	return zap.New(slogCore{log: log}, zap.WithFatalHook(zapcore.WriteThenPanic))
}

// Enabled implements zapcore.Core.
func (c slogCore) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

// With implements zapcore.Core.
func (c slogCore) With(fields []zapcore.Field) zapcore.Core {
	return slogCore{log: c.log, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

// Check implements zapcore.Core.
func (c slogCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

// Write implements zapcore.Core.
func (c slogCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	if !c.log.Enabled(context.Background(), slog.LevelDebug) {
		return nil
	}
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range c.fields {
		f.AddTo(enc)
	}
	for _, f := range fields {
		f.AddTo(enc)
	}
	c.log.DebugContext(context.Background(), "etcd says",
		"etcd_level", entry.Level.String(), "etcd_message", entry.Message,
		"etcd_fields", enc.Fields)
	return nil
}

// Sync implements zapcore.Core.
func (c slogCore) Sync() error { return nil }
