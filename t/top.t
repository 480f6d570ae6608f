#!/usr/bin/env perl
# Catches: an llm-top that leaves the terminal spoilt, draws what is not so,
# does not find a new engine, or goes on when nobody looks; an observer that
# takes a slot.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Encode ();
use LLM;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

my $top = LLM->build . '/llm-top';
plan skip_all => 'no script(1)' if !-x '/usr/bin/script';
my $t = LLM->new(workers => 1, location => 'llm_tenant_key $http_x_tenant;',
    conf => "    llm_tenant acme { weight 3; priority 2; concurrent 1; }\n",
    engine => [qw(--device null --model_name the-model --step_min 10ms --context 4096
        --batch_tokens 8 --block_tokens 8 --drain_timeout 20s)]);

sub once { my $out = `timeout 10 $top -1 -d 0.3 @_ $t->{socket} 2>&1`; return ($out, $? >> 8) }

# A terminal of rows x cols, in which llm-top runs; what it writes is drawn.
package Term {
    use IO::Handle;
    sub new {
        my ($class, $rows, $cols, @args) = @_;
        pipe my $in, my $keys or die;
        pipe my $out, my $screen or die;
        my $pid = fork // die;
        if (!$pid) {
            close $keys;
            close $out;
            open STDIN, '<&', $in;
            open STDOUT, '>&', $screen;
            open STDERR, '>&', $screen;
            $ENV{TERM} = 'xterm';
            $ENV{LC_ALL} = 'C.UTF-8';
            delete $ENV{NO_COLOR};
            no warnings 'exec';
            exec 'timeout', 60, 'script', '-qec', "stty rows $rows cols $cols; stty -a;"
                . " $top @args; echo \"ended \$?\"; stty -a", '/dev/null';
            POSIX::_exit(127);
        }
        close $in;
        close $screen;
        $keys->autoflush(1);
        return bless { pid => $pid, keys => $keys, out => $out, raw => '' }, $class;
    }
    # Reads on until the screen is like that, at most timeout seconds.
    sub read {
        my ($self, $want, $timeout) = @_;
        my $end = Time::HiRes::time() + ($timeout // 10);
        my $sel = IO::Select->new($self->{out});
        until ($want && $self->screen =~ $want) {
            my $left = $end - Time::HiRes::time();
            return 0 if $left <= 0;
            next if !$sel->can_read($left);
            return 0 if !sysread $self->{out}, my $buf, 65536;
            $self->{raw} .= $buf;
        }
        return 1;
    }
    # What stands on the other screen: lines by their last writing.
    sub screen {
        my ($self) = @_;
        my ($on) = $self->{raw} =~ /.*\x1b\[2J(.*)/s or return '';
        my @line;
        while ($on =~ /\x1b\[(\d+);1H((?:[^\x1b]|\x1b\[[0-9;]*m)*)/g) {
            my ($n, $text) = ($1, $2);
            $line[$n - 1] = $text =~ s/\x1b\[[0-9;]*m//gr;
        }
        return join "\n", map { $_ // '' } @line;
    }
    sub press { my ($self, $keys) = @_; print { $self->{keys} } $keys }
    sub end {
        my ($self) = @_;
        $self->read(undef, 10);
        kill 'KILL', $self->{pid};
        waitpid $self->{pid}, 0;
    }
    # Is all as it was: keys, screen, cursor, wrapping?
    sub restored {
        my ($self) = @_;
        my @stty = $self->{raw} =~ /(speed \d+ baud.*?-?extproc)/sg;
        my ($tail) = $self->{raw} =~ /.*\x1b\[\?1049h(.*)/s;
        return @stty == 2 && ($stty[0] =~ s/rows \d+; columns \d+//r)
                eq ($stty[1] =~ s/rows \d+; columns \d+//r)
            && $tail =~ /\x1b\[\?7h\x1b\[\?25h\x1b\[\?1049l/;
    }
}

# The llm-top in a terminal: its process, found from its parents.
sub child {
    my ($term) = @_;
    my $pid;
    $t->wait_for(sub {
        my (%parent, @tops);
        for my $stat (glob '/proc/[0-9]*/stat') {
            my ($p, $name, $parent) = LLM::_slurp($stat) =~ /^(\d+) \((.*)\) \S (\d+)/ or next;
            $parent{$p} = $parent;
            push @tops, $p if $name eq 'llm-top';
        }
        for my $p (@tops) {
            my $up = $p;
            $up = $parent{$up} while $up && $up != $term->{pid};
            $pid = $p if $up;
        }
        $pid;
    }, 5);
    return $pid // die 'no llm-top';
}

# --- text ------------------------------------------------------------------------

my ($out, $rc) = once();
is($rc, 0, 'once');
like($out, qr/^ llm-top  the-model  serving  up \S.* pid $t->{pids}{engine}  workers 1$/m, 'title');
like($out, qr/^Blocks .* 0 % used .* free .* private/m, 'blocks');
like($out, qr/^Rates +0 out tok\/s/m, 'rates of an idle engine');
like($out, qr/^REQUEST +TENANT +CL STATE/m, 'an empty table');
unlike($out, qr/[\x00-\x09\x0b-\x1f\x7f]/, 'plain text');
is($t->metric('attachments'), 1, 'an observer is no worker');

sub as {
    my ($tenant, $prompt) = @_;
    my $c = $t->connect;
    print $c $t->request_text('POST', '/v1/completions', { model => 'the-model',
        prompt => $prompt, max_tokens => 2000, stream => JSON::PP::true }, 'X-Tenant' => $tenant);
    return LLM::Stream->new($c);
}

my @open = as('acme', 'hello');
$open[0]->next_event(5);
push @open, as('acme', 'hello'), as('globex', 'y' x 3000);
$t->wait_for(sub { $t->metric('requests_running') == 2 }, 5);
($out) = once();
like($out, qr/^\S+ +acme +2 decode +\d+ +\d+\/2.0k +\d+ +0 /m, 'one decodes');
like($out, qr/^\S+ +acme +2 waiting +\d+ +0\/2.0k +0 +0 /m, 'one waits');
like($out, qr/^\S+ +globex +\d+ prefill +\S+\/3.0k +0\/\S+ /m, 'a prompt is computed');
like($out, qr/^Queue .* 2 running +0 stalled +1 waiting/m, 'counted');
like($out, qr/^acme .* 1 +1 +\d+ +3$/m, 'a tenant');
my ($share) = $out =~ /^globex .*?([\d.]+) % /m;
cmp_ok($share // 0, '>', 50, 'who has most of the batch');
like($out, qr/^Batch .* 1 decoding +7 prefill +of 8 tokens/m, 'the batch') or diag($out);

# --- a terminal ------------------------------------------------------------------

my $term = Term->new(30, 110, '-d 0.2', $t->{socket});
ok($term->read(qr/globex.*q quit[^\n]{90}/s), 'it draws') or diag($term->{raw});
my @lines = map { Encode::decode('UTF-8', $_) } split /\n/, $term->screen;
is(scalar @lines, 30, 'as many lines as there are');
is(join('|', grep { length != 110 } @lines), '', 'each as wide');
like($lines[-1], qr/q quit .* 1-3 of 3/, 'keys');
$term->press('s');
ok($term->read(qr/order: age/), 's: another order');
$term->press("\e[B");
$term->press(' ');
ok($term->read(qr/space go on/), 'space stops it');
$term->read(undef, 0.3);
my $drawn = length $term->{raw};
$term->read(undef, 0.5);
is(length $term->{raw}, $drawn, 'and nothing is written');
$term->press(' ');
ok($term->read(qr/space stop/), 'and goes on');
$drawn = length $term->{raw};
$term->read(undef, 1);
my $cost = (length($term->{raw}) - $drawn) / 5;
cmp_ok($cost, '<', 6000, sprintf 'a picture is what changed: %d bytes', $cost);
unlike(substr($term->{raw}, $drawn), qr/\x1b\[[0-9]*[JK]/, 'and nothing is erased');

# --- the engine goes, and another comes ------------------------------------------

$_->close for splice @open;
$t->signal(engine => 'KILL');
$t->reap('engine');
unlink $t->{socket};
ok($term->read(qr/no sign of life since \d+ s/), 'it says that the engine is dead');
$t->start_engine(qw(--model_name the-next));
ok($term->read(qr/the-next/), 'and finds the next');
unlike($term->screen, qr/sign of life/, 'all is well');
$term->press('q');
$term->end;
like($term->{raw}, qr/ended 0/, 'q ends it');
ok($term->restored, 'the terminal is as it was') or diag($term->{raw});

# --- signals -----------------------------------------------------------------------

for my $sig (qw(TERM HUP)) {
    $term = Term->new(24, 80, $t->{socket});
    ok($term->read(qr/q quit/), "up for SIG$sig");
    kill $sig, child($term);
    $term->end;
    like($term->{raw}, qr/ended [1-9]/, "SIG$sig ends it");
    ok($term->restored, "SIG$sig: the terminal is as it was") or diag($term->{raw});
}

$term = Term->new(24, 80, $t->{socket});
ok($term->read(qr/q quit/), 'up');
my $tty = readlink '/proc/' . child($term) . '/fd/0';
system "stty rows 12 cols 64 <$tty";
ok($term->read(qr/\A[^\n]{64}\n(?:[^\n]*\n){10}[^\n]*\z/), 'it follows the size');
$term->press("\x03");
$term->end;
like($term->{raw}, qr/\x1b\[\?25h\x1b\[\?1049l/, '^C'); # ends its shell, too

# --- what is no terminal, no engine, no option ---------------------------------

$out = `timeout 10 $top -d 0.1 $t->{socket} | cat`;
like($out, qr/^ llm-top  the-next/, 'a pipe gets text');
$out = `timeout 10 $top -1 /nowhere/e.sock 2>&1`;
is($? >> 8, 1, 'no engine');
is($out, "llm-top: no engine at /nowhere/e.sock: No such file or directory\n", 'it says so');
$out = `$top --help`;
is($? >> 8, 0, 'help is no failure');
like($out, qr/usage: llm-top .*socket_group/s, 'help');
for my $bad ('-d 0', '-d x', '-d 61', '-s y', '-x', 'a b') {
    `timeout 10 $top $bad 2>&1`;
    is($? >> 8, 2, "$bad: usage");
}
$term = Term->new(24, 80, '-d 0.1', '/nowhere/e.sock');
ok($term->read(qr/no engine at/), 'without an engine it waits');
$term->press('q');
$term->end;
ok($term->restored, 'and ends');

# --- the log of steps ---------------------------------------------------------------

my $log = "$t->{dir}/steps.log";
my $logger = fork // die;
if (!$logger) {
    open STDOUT, '>', $log;
    exec 'timeout', 20, $top, '--steps', $t->{socket};
    POSIX::_exit(127);
}
my $slurp = sub { open my $f, '<', $log or return ''; local $/; return <$f> };
$t->wait_for(sub {
    $t->post('/v1/completions', { model => 'the-next', prompt => 'x ' x 20, max_tokens => 4 },
        'X-Tenant' => 'acme');
    return $slurp->() =~ /^\d+\.\d{3} \d+ 1 0$/m;
}, 10);
like($slurp->(), qr/\A(?:\d+\.\d{3} \d+ \d+ \d+\n)+\z/, 'a line for each step');
like($slurp->(), qr/ 0 [1-9]\d*\n.* 1 0\n/s, 'a prompt, then decodes');
$t->stop('engine', 'TERM');
$t->wait_for(sub { waitpid $logger, POSIX::WNOHANG() }, 10);
is($? >> 8, 1, 'it ends with the engine');
$out = `timeout 10 $top --steps /nowhere/e.sock 2>&1`;
like($out, qr/^llm-top: no engine at/, 'no log without an engine');

# --- an engine of before -----------------------------------------------------------

unlink $t->{socket};
$t->_spawn(fake => "$t->{dir}/fake.log", LLM->build . '/fake_engine', $t->{socket});
$t->wait_for(sub { -S $t->{socket} }, 5);
($out, $rc) = once();
is($rc, 1, 'one that cannot be observed');
like($out, qr/^llm-top: the engine at \S+ (?:does not answer|is too old)/, 'is named');
$t->stop('fake', 'KILL');
unlink $t->{socket};

$t->done;
