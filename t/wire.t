#!/usr/bin/env perl
# Version N of the wire against its neighbours: hellos, welcomes and records
# with more behind their fixed parts than is known, with less, sections and
# records that are not known, a state page with rows more.  Catches: a peer that
# is taken for confused because it is newer or older.

use strict;
use warnings;
use lib 't/lib';
use Digest::SHA 'sha256_hex';
use LLM;
use Test::More;

my $keys = File::Temp->new(TEMPLATE => '/tmp/ngx_llm_t.XXXXXX');
print $keys sha256_hex('key'), " id tenant\n";
$keys->flush;
chmod 0644, "$keys";

# with a tenant requests are held, so that there is COUNTED and ADMIT
my $t = LLM->new(workers => 1, no_nginx => 1, engine => [qw(--device null --model_name m)],
    conf => "llm_key_file $keys; llm_zone llm:1m;\n");

# --- workers of other versions
for my $mode (qw(newer older)) {
    $t->_spawn($mode => "$t->{dir}/worker.log", LLM->build . '/hostile_worker',
        $t->{socket}, $mode, 30);
    $t->reap($mode, 40);
    my $sign = $mode eq 'newer' ? '\+' : '-';
    like(LLM::_slurp("$t->{dir}/worker.log"), qr/^version $sign\d+: counted 1, done 1$/m,
        "a worker that is $mode is served");
}

# --- engines of other versions
$t->stop(engine => 'TERM');
$t->start_nginx;
for my $more (0, 8, 32) {
    for my $error (0, 1) {
        unlink $t->{socket};
        $t->_spawn(fake => "$t->{dir}/fake.log", LLM->build . '/fake_engine', $t->{socket},
            qw(--model m --newer), $more, $error ? ('--error', 1) : ());
        $t->wait_for(sub { $t->get('/ready')->{status} == 200 }, 20);
        my $s = $t->connect;
        print $s $t->request_text('POST', '/v1/completions', { model => 'm', prompt => 'x',
            max_tokens => 3, stream => JSON::PP::true }, Authorization => 'Bearer key');
        my $in = LLM::Stream->new($s);
        my $text = $in->text(0, 20);
        my $what = "$more bytes more" . ($error ? ', ERROR' : '');
        $error ? is($in->{status}, 500, "$what: 500") : is($text, 'w0 w1 w2 ', "$what: served");
        $t->signal(fake => 'KILL');
        $t->reap('fake');
    }
}

$t->done;
