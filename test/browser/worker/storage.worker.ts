// The worker that pages give to `connect`.
import { serve } from '../../../src/opfs/owner.ts';

serve();
