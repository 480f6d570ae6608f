#!/usr/bin/env perl
# The names of models: llm_model rows with as= and default, several engines
# behind one llm_pass, names that need escaping, what is listed, and when an
# unknown name is 404 and when 503.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Encode ();
use LLM;
use Test::More;

my $odd = 'we/ird "n\\me" ü+1 %41 <&>';
my %engines = (
    alpha => ['alpha-model'],
    beta => ['beta-model'],
    gamma => [$odd],
);
my $t = LLM->new(no_nginx => 1, workers => 1,
    engine => [qw(--device null --model_name m)],
    server => <<'CONF');
        location /plain/ { llm_pass alpha; }
        location /rows/ { llm_pass beta; }
        location /both/ { llm_pass alpha beta; }
        location /back/ { llm_pass beta alpha; }
        location /odd/ { llm_pass gamma; }
        location /none/ { llm_pass nobody; }
        location /half/ { llm_pass nobody alpha; }
        location /hidden/ { llm_pass ghost; }
CONF
for my $name (sort keys %engines) {
    my $path = "$t->{dir}/$name.sock";
    $t->{conf} .= "llm_engine $name { server unix:$path; reconnect 50ms 200ms; }\n";
    start($name);
}
$t->{conf} .= <<"CONF";
    llm_engine nobody { server unix:$t->{dir}/nobody.sock; reconnect 50ms 200ms; }
    llm_engine ghost { server unix:$t->{dir}/ghost.sock; reconnect 50ms 200ms; }
    llm_model gpt-4 engine=beta as=beta-model;
    llm_model "gpt 4/mini" engine=beta as=beta-model default;
    llm_model absent engine=beta as=no-such-model;
    llm_model known engine=ghost;
CONF
$t->start_nginx;
$t->wait_for(sub { (grep { $_->{ready} } @{ $t->status->{engines} }) == 4 }, 10);

sub start {
    my ($name) = @_;
    my $path = "$t->{dir}/$name.sock";
    $t->_spawn($name => "$t->{dir}/engine.log", LLM->build . '/llm-engine',
        '--listen', $path, '--device', 'null', '--model_name', @{ $engines{$name} },
        $> ? () : qw(--socket_group www-data));
    $t->wait_for(sub { -S $path }, 10) or diag("no $name");
}

# What becomes of a request for a model: its name in the answer, or the status
# and code of the refusal.
sub ask {
    my ($path, $model, %more) = @_;
    my $r = $t->post("$path/completions", { prompt => 'x', max_tokens => 2,
        defined $model ? (model => $model) : (), %more });
    my $b = $t->decode($r->{body});
    return $r->{status} == 200 ? $b->{model} : "$r->{status} $b->{error}{code}";
}

sub listed {
    my ($path) = @_;
    my $r = $t->get("$path/models");
    return $r->{status} if $r->{status} != 200;
    return join ' | ', sort map { $_->{id} } @{ $t->decode($r->{body})->{data} };
}

# --- no rows: what the engine announces
is(ask('/plain', 'alpha-model'), 'alpha-model', 'announced');
is(ask('/plain', 'beta-model'), '404 model_not_found', 'another engine\'s');
is(ask('/plain', 'Alpha-model'), '404 model_not_found', 'names match exactly');
is(ask('/plain', 'alpha-mode'), '404 model_not_found', 'a prefix is another name');
is(ask('/plain', 'alpha-model2'), '404 model_not_found', 'so is a longer one');
is(ask('/plain', "alpha-model\0x"), '404 model_not_found', 'and one with a zero byte');
like(ask('/plain', ''), qr/^40[04] /, 'an empty name');
like(ask('/plain', undef), qr/^400 /, 'no name and no default: 400');
is(listed('/plain'), 'alpha-model', 'listed');

# --- rows
is(ask('/rows', 'gpt-4'), 'gpt-4', 'a row, under its public name');
is(ask('/rows', 'gpt 4/mini'), 'gpt 4/mini', 'another of the same model');
is(ask('/rows', undef), 'gpt 4/mini', 'the default');
is(ask('/rows', 'beta-model'), '404 model_not_found', 'its own name is hidden');
is(ask('/rows', $_), '404 model_not_found', "'$_' is no row") for 'gpt', 'gpt-', 'gpt-44', 'GPT-4';
is(ask('/rows', 'absent'), '404 model_not_found', 'a row for a model it has not');
is(listed('/rows'), 'gpt 4/mini | gpt-4', 'only what can be used is listed');

my $r = $t->post('/rows/chat/completions', { messages => [{ role => 'user', content => 'x' }],
    max_tokens => 2, stream => JSON::PP::true, model => 'gpt-4' });
my %names = map { $_ => 1 } $r->{body} =~ /"model":"([^"]*)"/g;
is(join(' ', keys %names), 'gpt-4', 'streamed: the public name in each chunk');

# --- several engines
is(ask('/both', 'alpha-model'), 'alpha-model', 'of the first');
is(ask('/both', 'gpt-4'), 'gpt-4', 'of the second');
is(ask('/both', 'beta-model'), '404 model_not_found', 'still hidden');
is(ask('/both', undef), 'gpt 4/mini', 'the only default');
is(ask('/back', 'alpha-model'), 'alpha-model', 'in another order');
is(listed('/both'), 'alpha-model | gpt 4/mini | gpt-4', 'all are listed');

# --- one model
for my $case (['alpha-model', 200], ['gpt-4', 200], ['gpt%204/mini', 200],
    ['gpt%204%2Fmini', 200], ['beta-model', 404], ['absent', 404], ['alpha', 404])
{
    my ($id, $status) = @$case;
    $r = $t->get("/both/models/$id");
    is($r->{status}, $status, "models/$id: $status");
    next if $status != 200;
    (my $name = $id) =~ s/%(..)/chr hex $1/ge;
    is($t->decode($r->{body})->{id}, $name, 'by its name');
}

# --- a name that needs escaping everywhere
my $name = Encode::decode('UTF-8', $odd);
is(listed('/odd'), $name, 'an odd name is listed');
is(ask('/odd', $name), $name, 'and served');
(my $escaped = $odd) =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ge;
$r = $t->get("/odd/models/$escaped");
is($r->{status}, 200, 'and found by its path') or diag($escaped);
is($t->decode($r->{body})->{id}, $name, 'unchanged');
my ($e) = grep { $_->{name} eq 'gamma' } @{ $t->status->{engines} };
is($e->{models}[0], $name, 'and in the status');

# --- not attached: whether a name exists cannot be known, but rows say it
is(ask('/none', 'anything'), '503 engine_unavailable', 'no engine: 503');
is(listed('/none'), 503, 'nothing to list');
is($t->get('/none/models/x')->{status}, 503, 'nor to show');
is(ask('/half', 'alpha-model'), 'alpha-model', 'one of two is there: its models');
is(ask('/half', 'anything'), '503 engine_unavailable', 'another might be the other\'s');
is(listed('/half'), 'alpha-model', 'what is there is listed');
is(ask('/hidden', 'known'), '503 engine_unavailable', 'a row of an absent engine: 503');
is(ask('/hidden', 'unknown'), '404 model_not_found', 'no row: 404 even so');

# --- an engine comes back with another model
$t->stop(alpha => 'TERM');
ok($t->wait_for(sub { ask('/plain', 'alpha-model') =~ /^503/ }, 5), 'gone: 503');
is(ask('/both', 'gpt-4'), 'gpt-4', 'the other serves on');
$engines{alpha} = ['alpha-2'];
start('alpha');
ok($t->wait_for(sub { ask('/plain', 'alpha-2') eq 'alpha-2' }, 5), 'the new name');
is(ask('/plain', 'alpha-model'), '404 model_not_found', 'instead of the old');
is(listed('/plain'), 'alpha-2', 'listed');

# --- refused when nginx starts
sub refused {
    my ($what, $conf, $like) = @_;
    $t->write_conf($t->preamble . "events {}\nhttp {\n" . $t->temp_paths
        . "llm_engine a { server unix:/x; } llm_engine b { server unix:/y; }\n$conf\n}\n");
    my $nginx = $ENV{LLM_NGINX} // '/usr/sbin/nginx';
    my $out = `ASAN_OPTIONS=detect_leaks=0 $nginx -t -p $t->{dir} -e $t->{dir}/test.log -c $t->{dir}/nginx.conf 2>&1`;
    isnt($?, 0, "$what: refused");
    like($out, qr/\[emerg\].*$like.* in \S*nginx\.conf:\d+/s, "$what: file and line");
}
refused('no engine', 'llm_model x as=y;', 'engine=');
refused('unknown engine', 'llm_model x engine=z;', '"z"');
refused('two defaults', 'llm_model x engine=a default; llm_model y engine=a default;', 'default');
refused('twice', 'llm_model x engine=a; llm_model x engine=a as=y;', 'duplicate');
refused('too long', 'llm_model ' . 'x' x 128 . ' engine=a;', 'name');
refused('empty', 'llm_model "" engine=a;', 'name');
refused('parameter', 'llm_model x engine=a colour=blue;', 'colour');
$t->write_conf($t->preamble . "events {}\nhttp {\n" . $t->temp_paths
    . "llm_engine a { server unix:/x; } llm_engine b { server unix:/y; }\n"
    . "llm_model x engine=a default; llm_model x engine=b default;\n}\n");
my $nginx = $ENV{LLM_NGINX} // '/usr/sbin/nginx';
is(system("ASAN_OPTIONS=detect_leaks=0 $nginx -t -p $t->{dir} -e $t->{dir}/test.log -c $t->{dir}/nginx.conf 2>/dev/null"),
    0, 'one name and default per engine is right');

$t->stop($_ => 'TERM') for sort keys %engines;
$t->done;
